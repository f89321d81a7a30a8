"""Every transition of a job, one function each, named for its event; nothing else writes ``Job.status``.

A caller holds the job's row locked. A transition checks the state that it finds by the tables of ``lifecycle``, changes the row
and adds the event in the same transaction. Events are numbered under that lock, so they become visible in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from service import usage
from service.clock import now
from service.errors import JobFailure, NotFound
from service.lifecycle import FINAL, Event, Outcome, Status, may_happen, may_move
from service.tables import Artifact, Job, JobDependency, JobEvent


@dataclass(frozen=True)
class Fence:
    """One attempt at one job: what a worker names with every write, so that one whose lease has ended writes nothing."""

    job_id: str
    attempt: int


def get(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """Reads one job; with ``lock`` it is read anew, and nobody else changes it before the transaction ends. Raises NotFound."""
    job = session.get(Job, job_id, with_for_update=lock or None, populate_existing=lock)
    if job is None:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    return job


def lock_fenced(session: Session, fence: Fence) -> Job | None:
    """Locks the job of a running attempt. None: the attempt is over, or another one runs.

    The transaction holds the lock to its end, so only its first call asks the database.
    """
    held: Job | None = session.info.get(fence)
    if held is None:
        held = session.scalar(select(Job).where(*holds(fence)).with_for_update().execution_options(populate_existing=True))
        session.info[fence] = held
    return held if held is not None and held.status == Status.RUNNING and held.attempt == fence.attempt else None


def holds(fence: Fence) -> tuple[Any, ...]:
    """Conditions of a query, under which the attempt still holds its job."""
    return Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.RUNNING


def record_event(session: Session, job: Job, type_: str, message: str, data: dict[str, Any] | None = None) -> None:
    """Appends an event to the audit of a locked job."""
    job.last_event_seq += 1
    session.add(JobEvent(job_id=job.id, seq=job.last_event_seq, type=type_, message=message, data=data or {}))
    touch(session, job)


def record_warnings(session: Session, job: Job, warnings: Sequence[Mapping[str, str]]) -> None:
    """Appends an event for each warning, ``code`` and ``message``, to the audit of a locked job."""
    for warning in warnings:
        record_event(session, job, "job.warning", warning["message"], {"code": warning["code"]})


def touch(session: Session, job: Job) -> None:
    """Marks a locked job as changed: its ETag, and the notification that follows the commit."""
    job.version += 1
    session.info.setdefault("changed", set()).add(job.id)


# ---------------------------------------------------------------- before devices


def start_check(session: Session, job: Job, *, worker_id: str, lease_seconds: float) -> Outcome:
    """Gives the check of a job to a worker, until its lease ends. The job stays ``checking``."""
    if not may_happen(Event.CHECK_STARTED, Status(job.status)):
        return Outcome.NOT_ALLOWED
    job.checks += 1
    job.lease_expires_at = now(session) + timedelta(seconds=lease_seconds)
    job.status_reason = f"is checked by {worker_id}"
    job.progress = {"phase": "checking", "fraction": 0.0, "message": "One step on a few rows"}
    record_event(session, job, Event.CHECK_STARTED, job.status_reason, {"check": job.checks, "worker": worker_id})
    return Outcome.APPLIED


def lose_check(session: Session, job: Job, why: str) -> Outcome:
    """Takes a check from its worker, for another one to begin. The job stays ``checking``."""
    if not may_happen(Event.CHECK_LOST, Status(job.status)):
        return Outcome.NOT_ALLOWED
    job.lease_expires_at = None
    job.status_reason = f"waits for its check: {why}"
    record_event(session, job, Event.CHECK_LOST, job.status_reason)
    return Outcome.APPLIED


def wait(session: Session, job: Job, reason: str, data: dict[str, Any] | None = None) -> Outcome:
    """checking, queued → waiting: the job needs others that have not succeeded."""
    return _move(session, job, Status.WAITING, reason, data)


def enqueue(session: Session, job: Job, reason: str, data: dict[str, Any] | None = None) -> Outcome:
    """checking, waiting → queued: the job is checked, and what it needs has succeeded."""
    return _move(session, job, Status.QUEUED, reason, data)


def promote(session: Session, job: Job) -> Outcome:
    """Raises a job that waited long by one class. The job stays ``queued``."""
    if not may_happen(Event.PROMOTED, Status(job.status)):
        return Outcome.NOT_ALLOWED
    job.queue_class = job.priority - 1
    record_event(session, job, Event.PROMOTED, "it has waited long, and waits one class higher from now on")
    return Outcome.APPLIED


# ---------------------------------------------------------------- with devices


def start(session: Session, job: Job, *, worker_id: str, devices: Sequence[str], at: datetime, lease_seconds: float) -> Outcome:
    """queued → running: the next attempt, of this worker, until its lease ends. The owner is charged at once."""
    if not may_move(Status(job.status), Status.RUNNING):
        return Outcome.NOT_ALLOWED
    waited = (at - job.waiting_since).total_seconds() if job.waiting_since else 0.0
    job.attempt, job.writes = job.attempt + 1, 0
    job.worker_id, job.devices = worker_id, list(devices)
    job.started_at, job.lease_expires_at = at, at + timedelta(seconds=lease_seconds)
    job.expected_end_at = job.waiting_since = job.reserved_worker_id = None
    job.status, job.status_reason = Status.RUNNING, f"runs on {worker_id}"
    usage.charge_start(session, job, at=at)
    record_event(
        session,
        job,
        "job.running",
        f"attempt {job.attempt} on {', '.join(devices)} of worker {worker_id}",
        {"attempt": job.attempt, "worker": worker_id, "devices": list(devices), "waited_seconds": waited},
    )
    return Outcome.APPLIED


def request_stop(
    session: Session, job: Job, stop: str, *, message: str, keep: str | None = None, by: str | None = None
) -> Outcome:
    """Asks a running job to stop: ``stop`` is cancel, pause or preempt. The job stays ``running`` until its trainer has stopped.

    ``keep`` is what a cancel makes a student of, ``by`` the job that a preemption is for.
    """
    if not may_happen(Event.STOP_REQUESTED, Status(job.status)):
        return Outcome.NOT_ALLOWED
    job.stop_requested = stop
    if keep is not None:
        job.stop_keep = keep
    details = {"keep": keep, "by": by}
    given = {name: value for name, value in details.items() if value is not None}
    record_event(session, job, Event.STOP_REQUESTED, message, {"stop": stop, **given})
    return Outcome.APPLIED


def withdraw_stop(session: Session, job: Job) -> Outcome:
    """Takes back the pause of a running job whose trainer has not stopped yet. The job stays ``running``."""
    if not may_happen(Event.STOP_WITHDRAWN, Status(job.status)):
        return Outcome.NOT_ALLOWED
    withdrawn, job.stop_requested = job.stop_requested, None
    record_event(session, job, Event.STOP_WITHDRAWN, f"the {withdrawn} was taken back", {"stop": withdrawn})
    return Outcome.APPLIED


def requeue(session: Session, job: Job, reason: str, failure: JobFailure | None = None) -> Outcome:
    """running → queued: the attempt ended, and another one goes on from the last checkpoint. ``failure`` is what it ended of."""
    return _move(session, job, Status.QUEUED, reason, {} if failure is None else {"error": failure.model_dump()})


def pause(session: Session, job: Job, reason: str) -> Outcome:
    """queued, running → paused."""
    return _move(session, job, Status.PAUSED, reason)


def resume(session: Session, job: Job) -> Outcome:
    """paused → queued."""
    return _move(session, job, Status.QUEUED, "resumed by request")


# ---------------------------------------------------------------- to an end


def succeed(session: Session, job: Job) -> Outcome:
    """running → succeeded; jobs that needed this one alone are queued. The reason tells what the student is not accepted for."""
    missed = (job.result or {}).get("not_accepted") or []
    reason = "the student is trained" + (f", and not accepted: {'; '.join(missed)}" if missed else "")
    return _move(session, job, Status.SUCCEEDED, reason)


def fail(session: Session, job: Job, failure: JobFailure) -> Outcome:
    """checking, waiting, running → failed; jobs that need this one fail with it."""
    if not may_move(Status(job.status), Status.FAILED):
        return Outcome.NOT_ALLOWED
    job.error = failure.model_dump()
    return _move(session, job, Status.FAILED, failure.message, {"error": job.error})


def cancel(session: Session, job: Job, reason: str) -> Outcome:
    """Any state but a final one → cancelled; jobs that need this one fail."""
    return _move(session, job, Status.CANCELLED, reason)


def dependency_failed(needed: Job) -> JobFailure:
    """The error of a job that needs one which failed or was cancelled."""
    return JobFailure(
        code="dependency_failed",
        message=f"job {needed.id}, which it needs, is {needed.status}",
        hint="Mend and repeat that job, then submit this one again with the new id.",
    )


def _move(session: Session, job: Job, target: Status, reason: str, data: dict[str, Any] | None = None) -> Outcome:
    """Any transition but a start: accounts for an attempt that ends, and settles the jobs that need one in a final state."""
    source = Status(job.status)
    if not may_move(source, target):
        return Outcome.NOT_ALLOWED
    at = now(session)
    if source is Status.RUNNING:
        with session.no_autoflush:
            usage.settle(session, job, at=at, ended=True)
        seconds = max(0.0, (at - job.started_at).total_seconds()) if job.started_at else 0.0
        job.run_seconds += seconds
        job.gpu_seconds += seconds * job.gpus
        job.stop_requested = job.stop_keep = job.devices = job.expected_end_at = None
    job.lease_expires_at = job.waiting_since = job.reserved_worker_id = None
    if target is Status.QUEUED:
        job.queued_at = job.queued_at or at
        job.waiting_since, job.queue_class = at, job.priority
    if target in FINAL:
        job.finished_at = at
    job.status, job.status_reason = target, reason
    record_event(session, job, f"job.{target}", reason, data)
    if target in FINAL:
        _release_checkpoint(session, job)
        _settle_dependents(session, job)
    return Outcome.APPLIED


def _release_checkpoint(session: Session, job: Job) -> None:
    """Leaves the checkpoint to the sweep: no attempt will resume from it.

    A job that ran out of time, or whose files the store did not take, keeps its own.
    """
    if job.error is not None and job.error["code"] in {"time_limit", "artifacts_unavailable"}:
        return
    last = update(Artifact).where(Artifact.job_id == job.id, Artifact.kind == "checkpoint")
    session.execute(last.values(kind="spent"))


def _settle_dependents(session: Session, job: Job) -> None:
    """Queues or fails, in the same transaction, the jobs that waited for this one."""
    query = select(Job).join(JobDependency, JobDependency.job_id == Job.id).where(JobDependency.needs_job_id == job.id)
    waits, is_checked = Job.status == Status.WAITING, Job.status == Status.CHECKING
    if job.status == Status.SUCCEEDED:
        groups = [query.where(waits).with_for_update(of=Job)]
    else:
        unchecked = and_(is_checked, Job.lease_expires_at.is_(None))
        # One whose check runs is skipped while it is locked: the end of its check may be waiting for this job's row
        # (dependencies.enter_queue), and fails it then.
        groups = [
            query.where(or_(waits, unchecked)).with_for_update(of=Job),
            query.where(is_checked).with_for_update(of=Job, skip_locked=True),
        ]
    for dependent in (each for group in groups for each in session.scalars(group.order_by(Job.id)).all()):
        if dependent.status not in {Status.WAITING, Status.CHECKING}:
            continue  # settled a moment ago, through another job that both need
        if job.status != Status.SUCCEEDED:
            fail(session, dependent, dependency_failed(job))
            continue
        open_needs = session.scalar(
            select(func.count())
            .select_from(JobDependency)
            .join(Job, Job.id == JobDependency.needs_job_id)
            .where(JobDependency.job_id == dependent.id, Job.status != Status.SUCCEEDED, Job.id != job.id)
        )
        if not open_needs:
            enqueue(session, dependent, "the jobs that it needs have succeeded")
