"""Writes of a worker for the attempt that it runs: lease, progress, metrics, log, checkpoint and end.

The first write of a transaction locks the job's row and checks the fence (``attempt``): an attempt that is over writes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, delete, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from service import usage
from service.clock import now, now_sql, seconds_sql
from service.errors import JobFailure
from service.jobs import transitions
from service.jobs.transitions import Fence, holds, lock_fenced, record_event, touch
from service.lifecycle import Outcome, Status
from service.store import StoredFile
from service.tables import Artifact, Job, JobEvent, JobSource, LogChunk, Model

_STOPPED = {
    "preempt": "for a job of high priority",
    "drain": "since its worker takes no more jobs",
    "signal": "since its trainer was sent SIGTERM",
}
_NOTHING_KEPT = "cancelled by request: no student is kept"
MAX_LOSSES = 10
"""Losses in a row, without a new checkpoint between, after which a job fails: by then it may be the job that ends its hosts."""
MAX_LOG_BYTES = 8 * 2**20
"""Most of a job's log that is kept for reading over HTTP."""
_PUT_POINTS = text(
    """
INSERT INTO metric_points (job_id, name, step, value)
SELECT :job_id, series.key, (point ->> 0)::bigint, (point ->> 1)::double precision
FROM jsonb_each(:points) AS series, jsonb_array_elements(series.value) AS point
ON CONFLICT (job_id, name, step) DO UPDATE SET value = excluded.value
"""
).bindparams(bindparam("points", type_=JSONB))
"""Stores any number of points in one trip. As JSON, since an array of the names, one for each point, takes longer to send."""


@dataclass(frozen=True)
class Renewal:
    """The answer to a heartbeat."""

    stop_requested: str | None
    stop_keep: str | None


def write_once(session: Session, fence: Fence, number: int, write: Callable[[Session], Outcome]) -> Outcome:
    """Makes the ``number``-th write of an attempt, from 1 on, with everything that shows it.

    ALREADY: an earlier try made it, whose commit had no answer; it may have ended the attempt. If a later write did, which waited
    for no answer to this one, nobody knows whether this one was made: LEASE_LOST.
    """
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.ALREADY if num_writes(session, fence) == number else Outcome.LEASE_LOST
    if job.writes >= number:
        return Outcome.ALREADY
    outcome = write(session)
    if outcome is Outcome.APPLIED:
        job.writes = number
    return outcome


def num_writes(session: Session, fence: Fence) -> int:
    """The number of the last write that an attempt has made; 0 if another one has begun since."""
    return session.scalar(select(Job.writes).where(Job.id == fence.job_id, Job.attempt == fence.attempt)) or 0


def renew_lease(session: Session, fence: Fence, *, lease_seconds: float) -> Renewal | None:
    """Extends the lease, by the database's clock, with each heartbeat. None: the lease is lost."""
    row = session.execute(
        update(Job)
        .where(*holds(fence))
        .values(lease_expires_at=now_sql(session) + seconds_sql(lease_seconds))
        .returning(Job.stop_requested, Job.stop_keep, Job.started_at, Job.accounted_seconds, now_sql(session).label("now"))
    ).one_or_none()
    if row is None:
        return None
    if usage.is_due(row.started_at, row.accounted_seconds, at=row.now) and (job := lock_fenced(session, fence)) is not None:
        usage.settle(session, job, at=row.now, ended=False)
    return Renewal(row.stop_requested, row.stop_keep)


def record_progress(
    session: Session,
    fence: Fence,
    progress: dict[str, Any],
    *,
    milestone: str | None = None,
    remaining_seconds: float | None = None,
) -> Outcome:
    """Stores the newest progress; with ``milestone``, a sentence, it is recorded as an event too.

    ``remaining_seconds`` is the estimate for the whole job by its measured steps, None as long as there is none; it is cut off at
    the job's ``max_runtime_seconds``.
    """
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    job.progress = progress
    if remaining_seconds is not None:
        at = now(session)
        ran = job.run_seconds + ((at - job.started_at).total_seconds() if job.started_at else 0.0)
        left = max(0.0, job.max_runtime_seconds - ran)
        job.expected_end_at = at + timedelta(seconds=min(remaining_seconds, left))
    if milestone is None:
        touch(session, job)
    else:
        record_event(session, job, "progress", milestone, progress)
    return Outcome.APPLIED


def record_metrics(session: Session, fence: Fence, points: Mapping[str, Sequence[tuple[int, float]]]) -> Outcome:
    """Adds metric points; a step that has a value already gets the new one."""
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    kept = {name: list(dict(series).items()) for name, series in points.items() if series}
    if not kept:
        return Outcome.APPLIED
    with session.no_autoflush:  # the job's row is written once, at the commit
        session.execute(_PUT_POINTS, {"job_id": job.id, "points": kept})
    latest = {name: max(series)[1] for name, series in kept.items()}
    record_event(session, job, "metrics", ", ".join(f"{name} {value:.4g}" for name, value in latest.items()), {"points": kept})
    return Outcome.APPLIED


def record_warning(session: Session, fence: Fence, *, code: str, message: str) -> Outcome:
    """Records a warning of the trainer's as an event, unless the job's check or an earlier attempt did."""
    return _record_once(session, fence, "job.warning", code, message)


def record_note(session: Session, fence: Fence, *, code: str, message: str) -> Outcome:
    """Records as an event what the trainer has decided, unless an earlier attempt did."""
    return _record_once(session, fence, "job.note", code, message)


def _record_once(session: Session, fence: Fence, kind: str, code: str, message: str) -> Outcome:
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    known = select(JobEvent.message).where(JobEvent.job_id == job.id, JobEvent.type == kind)
    if message not in session.scalars(known):
        record_event(session, job, kind, message, {"code": code})
    return Outcome.APPLIED


def append_log(session: Session, fence: Fence, addition: str) -> Outcome:
    """Appends to the job's log, up to ``MAX_LOG_BYTES`` in all; the whole log is an artifact at the end."""
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    ends = select(LogChunk.start + LogChunk.size).where(LogChunk.job_id == job.id)
    start = session.scalar(ends.order_by(LogChunk.start.desc()).limit(1)) or 0
    data = addition.encode()[: max(0, MAX_LOG_BYTES - start)]
    kept = data.decode(errors="ignore")
    if kept:
        session.add(LogChunk(job_id=job.id, start=start, text=kept, size=len(kept.encode())))
        touch(session, job)
    return Outcome.APPLIED


def log_text(session: Session, job_id: str) -> str:
    """Reads the whole log that is kept of a job, all attempts in order."""
    chunks = session.scalars(select(LogChunk.text).where(LogChunk.job_id == job_id).order_by(LogChunk.start))
    return "".join(chunks)


def record_checkpoint(session: Session, fence: Fence, file: StoredFile, *, phase: str, step: int) -> tuple[Outcome, str | None]:
    """Makes a stored checkpoint the one to resume from; returns the outcome and the store's key of the one that it replaces."""
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST, None
    job.losses = 0
    old = session.get(Artifact, (job.id, file.name))
    replaced = None
    if old is not None:
        replaced = old.path
        session.delete(old)
        session.flush()
    session.add(_artifact(job, file, kind="checkpoint"))
    record_event(session, job, "checkpoint", f"checkpoint at step {step} of the {phase} phase", {"phase": phase, "step": step})
    return Outcome.APPLIED, replaced if replaced != file.path else None


def noted_revisions(session: Session, job_id: str) -> dict[str, str]:
    """The revision of each network that the job's first attempt fetched, by its source."""
    rows = session.execute(select(JobSource.source, JobSource.revision).where(JobSource.job_id == job_id))
    return dict(rows.tuples().all())


def note_revisions(session: Session, fence: Fence, revisions: Mapping[str, str]) -> Outcome:
    """Notes what the networks of a job were resolved to, for later attempts; what an earlier one has noted stays."""
    if lock_fenced(session, fence) is None:
        return Outcome.LEASE_LOST
    rows = [{"job_id": fence.job_id, "source": source, "revision": revision} for source, revision in revisions.items()]
    session.execute(insert(JobSource).values(rows).on_conflict_do_nothing())
    return Outcome.APPLIED


def succeed(
    session: Session, fence: Fence, *, result: dict[str, Any], files: Iterable[StoredFile], models: Iterable[Model]
) -> Outcome:
    """running → succeeded: publishes the artifacts and lists the student, and the teacher that was trained, as models."""
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    job.result = result
    _publish(session, job, files, models)
    if job.progress is not None:
        job.progress = {**job.progress, "fraction": 1.0, "eta_seconds": 0.0}
    return transitions.succeed(session, job)


def fail(
    session: Session, fence: Fence, failure: JobFailure, *, files: Iterable[StoredFile] = (), models: Iterable[Model] = ()
) -> Outcome:
    """running → failed, for an error that another attempt would repeat; ``models`` has the student so far, if it is kept."""
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    _publish(session, job, files, models)
    return transitions.fail(session, job, failure)


def settle_stopped(
    session: Session, fence: Fence, *, reason: str, files: Iterable[StoredFile] = (), models: Sequence[Model] = ()
) -> Outcome:
    """running → cancelled, paused or queued, after the trainer has stopped for ``reason``.

    The request on the row decides, not ``reason``: since the trainer read it, it may have become a cancel, or been taken back.
    ``models`` has the student that a cancel keeps, if any.
    """
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    _publish(session, job, files, models)
    match job.stop_requested:
        case "cancel":
            return transitions.cancel(session, job, "cancelled by request" if models else _NOTHING_KEPT)
        case "pause":
            return transitions.pause(session, job, "paused by request")
        case _:
            why = _STOPPED.get(reason, "by request")
            return transitions.requeue(session, job, f"stopped {why}; goes on from its last checkpoint")


def crash(session: Session, fence: Fence, failure: JobFailure, *, files: Iterable[StoredFile] = ()) -> Outcome:
    """running → queued, or failed once ``max_attempts`` are used up: the attempt ended by the job's own doing."""
    job = lock_fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    job.crashes += 1
    why = f"attempt {job.attempt} ended: {failure.message}; goes on from its last checkpoint"
    return _interrupt(session, job, failure, files, why=why, is_last=job.crashes >= job.max_attempts)


def lose(session: Session, fence: Fence, failure: JobFailure, *, files: Iterable[StoredFile] = ()) -> Outcome:
    """running → queued at no charge, or failed after ``MAX_LOSSES`` in a row: a machine took the attempt from the job."""
    job = lock_fenced(session, fence)
    return Outcome.LEASE_LOST if job is None else _lose(session, job, failure, files)


def expire_leases(session: Session) -> int:
    """Ends the attempts whose lease has expired, as lost; returns their number."""
    lost = session.scalars(
        select(Job)
        .where(Job.status == Status.RUNNING, Job.lease_expires_at < now_sql(session))
        .order_by(Job.id)
        .limit(1000)
        .with_for_update(skip_locked=True)
    ).all()
    for job in lost:
        message = f"worker {job.worker_id} stopped renewing its lease"
        hint = "The worker's host was lost, or the worker was killed; look at its log."
        _lose(session, job, JobFailure(code="worker_lost", message=message, hint=hint), ())
    return len(lost)


def extend_leases(session: Session, *, lease_seconds: float) -> bool:
    """Gives every running attempt and check a whole term from now on: for a time nobody could renew its own.

    False: the row of one that has less than half a term is locked at the moment.
    """
    moment = now_sql(session)
    ends_at = moment + seconds_sql(lease_seconds)
    short = select(Job.id).where(Job.lease_expires_at < ends_at).with_for_update(skip_locked=True)
    session.execute(update(Job).where(Job.id.in_(short)).values(lease_expires_at=ends_at))
    left = select(Job.id).where(Job.lease_expires_at < moment + seconds_sql(lease_seconds / 2))
    return session.scalar(left.limit(1)) is None


def spent_checkpoints(session: Session) -> dict[str, str]:
    """Finds the store's keys of checkpoints that no attempt will resume from, by job; of very many, the first hundred."""
    rows = session.execute(select(Artifact.job_id, Artifact.path).where(Artifact.kind == "spent").limit(100))
    return {row.job_id: row.path for row in rows}


def forget_checkpoints(session: Session, spent: Mapping[str, str]) -> None:
    """Removes the rows of :func:`spent_checkpoints` once their files are removed."""
    session.execute(delete(Artifact).where(Artifact.kind == "spent", Artifact.job_id.in_(spent)))


def untidied(session: Session, *, lease_seconds: float) -> list[str]:
    """Finds jobs whose end was a lease ago, and in whose place in the store nobody has looked since; of very many, a hundred."""
    long_ago = now_sql(session) - seconds_sql(lease_seconds)
    query = select(Job.id).where(~Job.tidied, Job.finished_at < long_ago)
    return list(session.scalars(query.order_by(Job.finished_at).limit(100)))


def named_files(session: Session, job_id: str) -> set[str]:
    """The store's keys that rows name of a job. Whatever else is in its place was left by an attempt that was lost."""
    models = session.scalars(select(Model.files).where(Model.job_id == job_id))
    listed = session.scalars(select(Artifact.path).where(Artifact.job_id == job_id))
    return {*listed, *(file["path"] for files in models for file in files)}


def note_tidied(session: Session, job_id: str) -> None:
    """Notes that the store holds no file of the job that no row names."""
    session.execute(update(Job).where(Job.id == job_id).values(tidied=True))


def _lose(session: Session, job: Job, failure: JobFailure, files: Iterable[StoredFile]) -> Outcome:
    job.losses += 1
    why = f"attempt {job.attempt} was lost: {failure.message}; this is no crash, and it goes on from its last checkpoint"
    if job.losses >= MAX_LOSSES:
        message = f"{MAX_LOSSES} attempts in a row were lost before a new checkpoint, the last of them so: {failure.message}"
        failure = failure.model_copy(update={"message": message})
    return _interrupt(session, job, failure, files, why=why, is_last=job.losses >= MAX_LOSSES)


def _interrupt(
    session: Session, job: Job, failure: JobFailure, files: Iterable[StoredFile], *, why: str, is_last: bool
) -> Outcome:
    """Ends an attempt that nobody stopped. What people want of the job comes first."""
    if job.stop_requested == "cancel":
        return transitions.cancel(session, job, f"{_NOTHING_KEPT}; the attempt had ended: {failure.message}")
    if is_last:
        _publish(session, job, files)
        return transitions.fail(session, job, failure)
    if job.stop_requested == "pause":
        return transitions.pause(session, job, f"paused by request; the attempt had ended: {failure.message}")
    return transitions.requeue(session, job, why, failure)


def _publish(session: Session, job: Job, files: Iterable[StoredFile], models: Iterable[Model] = ()) -> None:
    session.add_all(models)
    files = list(files)
    if files:
        names = [file.name for file in files]
        session.execute(delete(Artifact).where(Artifact.job_id == job.id, Artifact.name.in_(names)))
        session.add_all(_artifact(job, file, kind="result") for file in files)


def _artifact(job: Job, file: StoredFile, *, kind: str) -> Artifact:
    return Artifact(
        job_id=job.id,
        name=file.name,
        kind=kind,
        attempt=job.attempt,
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        media_type=file.media_type,
    )
