"""Every transition of a job, one function each.

Each is called with the job's row locked, checks its state, and writes the event row in the same transaction. Sequence numbers of
events are given under that lock, so they become visible in order. A final state is never left.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from service import usage
from service.clock import now
from service.errors import JobFailure, NotFound
from service.lifecycle import FINAL, Outcome, Status, may_move
from service.tables import Artifact, Job, JobDependency, JobEvent


@dataclass(frozen=True)
class Fence:
    """One attempt at one job: what a worker must name to write anything of it."""

    job_id: str
    attempt: int


def get(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """One job; with ``lock`` as it is, and stays until the transaction ends. Raises NotFound."""
    job = session.get(Job, job_id, with_for_update=lock or None, populate_existing=lock)
    if job is None:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    return job


def fenced(session: Session, fence: Fence) -> Job | None:
    return session.scalar(select(Job).where(*holds(fence)).with_for_update().execution_options(populate_existing=True))


def holds(fence: Fence) -> tuple[Any, ...]:
    return Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.RUNNING


def end_failed(session: Session, job: Job, failure: JobFailure) -> Outcome:
    """Any state → failed, of a job whose row the caller holds locked."""
    job.error = failure.model_dump()
    return move(session, job, Status.FAILED, failure.message, {"error": job.error})


def move(session: Session, job: Job, target: Status, reason: str, data: dict[str, Any] | None = None) -> Outcome:
    """The one place where a status changes (a claim apart, in ``scheduling``); the caller holds the job's row locked."""
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
        _spend_checkpoint(session, job)
        _settle_dependents(session, job)
    return Outcome.APPLIED


def _spend_checkpoint(session: Session, job: Job) -> None:
    """No attempt will resume from it; a job that ran out of time, or that the store let down, keeps its own."""
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
        # One that is being checked is not waited for: the end of its check may wait for this job (pass_on), to fail with it then.
        groups = [
            query.where(or_(waits, unchecked)).with_for_update(of=Job),
            query.where(is_checked).with_for_update(of=Job, skip_locked=True),
        ]
    for dependent in (each for group in groups for each in session.scalars(group.order_by(Job.id)).all()):
        if dependent.status not in {Status.WAITING, Status.CHECKING}:
            continue  # settled a moment ago, through another job that both need
        if job.status != Status.SUCCEEDED:
            end_failed(session, dependent, dependency_failed(job))
            continue
        open_needs = session.scalar(
            select(func.count())
            .select_from(JobDependency)
            .join(Job, Job.id == JobDependency.needs_job_id)
            .where(JobDependency.job_id == dependent.id, Job.status != Status.SUCCEEDED, Job.id != job.id)
        )
        if not open_needs:
            move(session, dependent, Status.QUEUED, "the jobs that it needs have succeeded")


def dependency_failed(needed: Job) -> JobFailure:
    return JobFailure(
        code="dependency_failed",
        message=f"job {needed.id}, which it needs, is {needed.status}",
        hint="Mend and repeat that job, then submit this one again with the new id.",
    )


def record_event(session: Session, job: Job, type_: str, message: str, data: dict[str, Any] | None = None) -> None:
    """Appends to the audit of a job whose row the caller holds locked."""
    job.last_event_seq += 1
    session.add(JobEvent(job_id=job.id, seq=job.last_event_seq, type=type_, message=message, data=data or {}))
    touch(session, job)


def touch(session: Session, job: Job) -> None:
    """Marks the job as changed: its ETag, and the news that goes out after the commit."""
    job.version += 1
    session.info.setdefault("changed_jobs", set()).add(job.id)
