"""Requests of people on a stored job: cancel, pause, resume, edit, remove."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.errors import Conflict
from service.jobs import transitions
from service.jobs.dependencies import depend, hold_needs
from service.jobs.submission import refuse_over_limit
from service.lifecycle import FINAL, Outcome, Priority, Status
from service.spec import JobSpec
from service.tables import Job, JobDependency, JobLabel, JobTeacher, Model

_DEPENDENCY_LOCK = 7_445_003


def request_cancel(session: Session, job_id: str, *, keep: str) -> tuple[Job, Outcome]:
    """Cancels a job that does not run at once, and requests a stop of one that runs.

    ``keep`` (best, last or none) names the weights of which the worker makes a student; a job that does not run keeps none.
    """
    job = transitions.get(session, job_id, lock=True)
    match Status(job.status):
        case Status.CANCELLED:
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "cancel":
            return job, Outcome.ALREADY
        case Status.RUNNING:
            return job, transitions.request_stop(session, job, "cancel", message="cancel was asked for", keep=keep)
        case _:
            reason = "cancelled while it did not run: no student is kept" if job.attempt else "cancelled before it ran"
            return job, transitions.cancel(session, job, reason)


def request_pause(session: Session, job_id: str) -> tuple[Job, Outcome]:
    """Pauses a queued job at once, and requests a checkpoint and a stop of one that runs."""
    job = transitions.get(session, job_id, lock=True)
    match Status(job.status):
        case Status.PAUSED:
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "pause":
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "cancel":
            return job, Outcome.NOT_ALLOWED
        case Status.RUNNING:
            return job, transitions.request_stop(session, job, "pause", message="pause was asked for")
        case _:
            return job, transitions.pause(session, job, "paused by request")


def resume(session: Session, job_id: str) -> tuple[Job, Outcome]:
    """Queues a paused job again; of a running one, takes back the request to pause. Raises QueueLimitReached."""
    job = transitions.get(session, job_id, lock=True)
    match Status(job.status):
        case Status.QUEUED:
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested in (None, "preempt"):
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "pause":
            return job, transitions.withdraw_stop(session, job)
        case Status.PAUSED:
            refuse_over_limit(session, job.owner_id)
            return job, transitions.resume(session, job)
        case _:
            return job, Outcome.NOT_ALLOWED


def edit(
    session: Session,
    job_id: str,
    *,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: str | None = None,
    depends_on: Sequence[str] | None = None,
    permit: Callable[[Job], object] = lambda job: None,
) -> Job:
    """Changes the name, labels and priority of a stored job, and its dependencies as long as it has not started.

    ``permit`` is called first, with the job as it is, and raises the error of a change that is not permitted.

    Raises:
        InvalidSpec: a job in ``depends_on`` does not exist, or can no longer succeed.
        CircularDependency: that job waits for this one.
        InvalidTransition: it has started already.
    """
    needs: Sequence[Job] = ()
    if depends_on is not None:
        permit(known := transitions.get(session, job_id))
        # Two changes at once could close a circle that neither sees. And whoever ends a job locks it first, those that wait for
        # it second: so must this.
        session.execute(select(func.pg_advisory_xact_lock(_DEPENDENCY_LOCK)))
        needs = hold_needs(session, JobSpec.model_validate({**known.spec, "depends_on": list(depends_on)}))
    job = transitions.get(session, job_id, lock=True)
    permit(job)
    changed: dict[str, Any] = {}
    if name is not None:
        job.name = changed["name"] = name
    if labels is not None:
        job.labels = changed["labels"] = dict(labels)
        session.execute(delete(JobLabel).where(JobLabel.job_id == job.id))
        session.add_all(JobLabel(job_id=job.id, key=key, value=value) for key, value in labels.items())
    if priority is not None:
        changed["priority"] = priority
        job.priority = job.queue_class = Priority.named(priority)
        job.reserved_worker_id = None
    if depends_on is not None:
        changed["depends_on"] = list(depends_on)
        depend(session, job, needs)
    if changed:
        job.spec = {**job.spec, **changed}
        transitions.record_event(session, job, "job.edited", f"changed {', '.join(changed)}", changed)
    return job


def remove(session: Session, job_id: str) -> str:
    """Deletes a finished job; returns the store's prefix of its files, to be removed after the commit.

    Raises:
        NotFound: there is no such job.
        Conflict: it has not finished, or a job that has not uses a model that it left.
    """
    job = transitions.get(session, job_id, lock=True)
    if Status(job.status) not in FINAL:
        raise Conflict(f"job {job_id} is {job.status}; cancel it first, then delete it")
    # Who submits a job that uses a model of this one holds the model's row, not this job's.
    session.execute(select(Model.id).where(Model.job_id == job_id).with_for_update())
    user = session.scalar(
        select(Job.id)
        .join(JobTeacher, JobTeacher.job_id == Job.id)
        .join(Model, Model.id == JobTeacher.model_id)
        .where(Model.job_id == job_id, Job.status.not_in(FINAL))
        .limit(1)
    )
    user = user or session.scalar(
        select(JobDependency.job_id)
        .join(Job, Job.id == JobDependency.job_id)
        .where(JobDependency.needs_job_id == job_id, Job.status.not_in(FINAL))
        .limit(1)
    )
    if user is not None:
        raise Conflict(f"job {user} still needs job {job_id}; cancel it or wait until it has finished")
    transitions.touch(session, job)
    session.delete(job)
    return f"jobs/{job_id}"
