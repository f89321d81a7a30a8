"""Every transition of a job, one function each, and the writes of a running one.

Each locks the job's row, checks its state and, for a running job, the fence (``attempt``), and writes the event row in the same
transaction. Sequence numbers of events are given under that lock, so they become visible in order. A final state is never left.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import usage
from service.capacity import whole_gib
from service.clock import now, now_sql
from service.errors import (
    CircularDependency,
    Conflict,
    FieldError,
    IdempotencyMismatch,
    InvalidSpec,
    InvalidTransition,
    JobFailure,
    NotFound,
    QueueLimitReached,
    RequestInFlight,
)
from service.ids import new_id
from service.lifecycle import FINAL, Outcome, Status, may_move
from service.spec import JobSpec
from service.spec.source import split_source
from service.tables import Artifact, Job, JobDependency, JobEvent, JobLabel, JobTeacher, LogChunk, MetricPoint, Model, User

PRIORITY_RANK = {"high": 0, "normal": 1, "low": 2}
_STOPPED = {"preempt": "for a job of high priority", "drain": "since its worker takes no more jobs"}
_UNSTARTED = (Status.CHECKING, Status.WAITING, Status.QUEUED)
_NOTHING_KEPT = "cancelled by request: no student is kept"
_DEPENDENCY_LOCK = 7_445_003
MAX_LOG_BYTES = 8 * 2**20
"""Most of a job's log that is kept for reading over HTTP."""


@dataclass(frozen=True)
class Fence:
    """One attempt at one job: what a worker must name to write anything of it."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Renewal:
    """The answer to a heartbeat."""

    stop_requested: str | None
    stop_keep: str | None


@dataclass(frozen=True)
class StoredFile:
    """A file whose bytes are in the store, to be made visible by a commit."""

    name: str
    path: str
    size: int
    sha256: str
    media_type: str


# ---------------------------------------------------------------- submit and read


def submit(
    session: Session,
    *,
    owner_id: str,
    spec: JobSpec,
    dataset_id: str | None = None,
    teacher_model_ids: Iterable[str] = (),
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    preflight: bool = False,
) -> tuple[Job, bool]:
    """Stores a job; True beside it when it is new, False when the idempotency key named an earlier one.

    With ``preflight`` it is checked before it waits for devices.

    Raises:
        QueueLimitReached: the owner has as many unstarted jobs as may be.
        RequestInFlight: the same key is being served at this moment.
        IdempotencyMismatch: the key was used with another body.
        InvalidSpec: a job that it depends on does not exist, or can no longer succeed.
    """
    if idempotency_key is not None:
        earlier = find_repeat(session, owner_id=owner_id, idempotency_key=idempotency_key, request_sha256=request_sha256)
        if earlier is not None:
            return earlier, False
    needs = _hold_needs(session, spec)
    refuse_over_limit(session, owner_id)  # second, as a resume locks its job and then the owner
    at = now(session)
    if preflight:
        status, reason = Status.CHECKING, "waits for its check: one step on a few rows"
    else:
        status, reason = _by_needs(needs)
    resources = spec.resources
    job = Job(
        id=new_id("job"),
        owner_id=owner_id,
        name=spec.name,
        labels=spec.labels,
        spec=spec.model_dump(mode="json"),
        status=status,
        status_reason=reason,
        version=0,
        last_event_seq=0,
        pool=resources.pool,
        priority=PRIORITY_RANK[spec.priority],
        queue_class=PRIORITY_RANK[spec.priority],
        gpus=resources.gpus,
        cpu_slots=resources.cpu_slots,
        min_gpu_memory_gib=resources.min_gpu_memory_gib,
        shape=shape_of(resources.gpus, resources.cpu_slots, resources.min_gpu_memory_gib),
        max_runtime_seconds=resources.max_runtime_seconds,
        attempt=0,
        crashes=0,
        max_attempts=spec.max_attempts,
        created_at=at,
        queued_at=at if status is Status.QUEUED else None,
        waiting_since=at if status is Status.QUEUED else None,
        run_seconds=0.0,
        gpu_seconds=0.0,
        dataset_id=dataset_id,
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
    )
    session.add(job)
    session.flush()
    session.add_all(JobLabel(job_id=job.id, key=key, value=value) for key, value in spec.labels.items())
    session.add_all(JobDependency(job_id=job.id, needs_job_id=needed.id) for needed in needs)
    session.add_all(JobTeacher(job_id=job.id, model_id=model_id) for model_id in dict.fromkeys(teacher_model_ids))
    record_event(session, job, f"job.{job.status}", job.status_reason)
    return job, True


def needed_jobs(session: Session, spec: JobSpec, *, lock: bool = False) -> tuple[list[Job], list[FieldError]]:
    """The jobs that a spec depends on, by id, and why it cannot depend on some of them.

    With ``lock`` none of them can finish before the transaction ends: so nobody waits for one that is over.
    """
    pointers = {job_id: f"/depends_on/{index}" for index, job_id in enumerate(spec.depends_on)}
    sources = {place: split_source(teacher.source) for place, teacher in spec.teachers.items()}
    pointers |= {source.name: f"/{place}/source" for place, source in sources.items() if source.kind == "job"}
    query = select(Job).where(Job.id.in_(pointers)).order_by(Job.id)
    found = {job.id: job for job in session.scalars(query.with_for_update(read=True) if lock else query)} if pointers else {}
    faults = []
    for job_id, pointer in pointers.items():
        job = found.get(job_id)
        if job is None:
            faults.append(FieldError(pointer=pointer, message=f"there is no job {job_id!r}; GET /v1/jobs lists those that exist"))
        elif job.status in {Status.FAILED, Status.CANCELLED}:
            student = session.scalar(select(Model.id).where(Model.job_id == job_id))
            teaches = student is not None and not pointer.startswith("/depends_on")
            instead = f"what it kept of its student is model:{student}" if teaches else "name one that can still succeed"
            faults.append(FieldError(pointer=pointer, message=f"job {job_id} is {job.status}; {instead}"))
    return list(found.values()), faults


def refuse_over_limit(session: Session, owner_id: str) -> None:
    """Raises QueueLimitReached where the owner has as many unstarted jobs as may be; else no others come until the commit."""
    limit = session.scalar(select(User.max_queued_jobs).where(User.id == owner_id))
    if limit is None:
        return
    session.execute(select(User.id).where(User.id == owner_id).with_for_update(key_share=True))
    waiting = select(Job.id).where(Job.owner_id == owner_id, Job.status.in_(_UNSTARTED)).limit(limit).subquery()
    if (session.scalar(select(func.count()).select_from(waiting)) or 0) >= limit:
        remedy = "try again once some have started, cancel some, or ask" if limit else "ask"
        raise QueueLimitReached(
            f"{limit or 'none'} of your jobs {'wait already' if limit else 'may wait'}, which is your limit; "
            f"{remedy} an admin for a higher max_queued_jobs"
        )


def find_repeat(session: Session, *, owner_id: str, idempotency_key: str, request_sha256: str | None) -> Job | None:
    """The job that this owner's idempotency key named before. Holds the key until the transaction ends."""
    digest = hashlib.sha256(f"{owner_id}\0{idempotency_key}".encode()).digest()
    lock = int.from_bytes(digest[:8], "big", signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise RequestInFlight("a request with this Idempotency-Key is being served; ask again in a moment", retry_after_seconds=1)
    job = session.scalar(select(Job).where(Job.owner_id == owner_id, Job.idempotency_key == idempotency_key))
    if job is not None and job.request_sha256 != request_sha256:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used with another body; send the same body, or a new key", param="Idempotency-Key"
        )
    return job


def get(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """One job; with ``lock`` as it is, and stays until the transaction ends. Raises NotFound."""
    job = session.get(Job, job_id, with_for_update=lock or None, populate_existing=lock)
    if job is None:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    return job


# ---------------------------------------------------------------- requests of people


def request_cancel(session: Session, job_id: str, *, keep: str) -> tuple[Job, Outcome]:
    """Cancels at once what does not run, and asks a running job to stop.

    ``keep``: best, last or none, of which its worker makes a student; a job that does not run has no worker to do that.
    """
    job = _locked(session, job_id)
    match Status(job.status):
        case Status.CANCELLED:
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "cancel":
            return job, Outcome.ALREADY
        case Status.RUNNING:
            job.stop_requested, job.stop_keep = "cancel", keep
            record_event(session, job, "job.stop_requested", "cancel was asked for", {"stop": "cancel", "keep": keep})
            return job, Outcome.APPLIED
        case _:
            reason = "cancelled while it did not run: no student is kept" if job.attempt else "cancelled before it ran"
            return job, move(session, job, Status.CANCELLED, reason)


def request_pause(session: Session, job_id: str) -> tuple[Job, Outcome]:
    """Takes a queued job out of the queue, and asks a running one to write a checkpoint and stop."""
    job = _locked(session, job_id)
    match Status(job.status):
        case Status.PAUSED:
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "pause":
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "cancel":
            return job, Outcome.NOT_ALLOWED
        case Status.RUNNING:
            job.stop_requested = "pause"
            record_event(session, job, "job.stop_requested", "pause was asked for", {"stop": "pause"})
            return job, Outcome.APPLIED
        case _:
            return job, move(session, job, Status.PAUSED, "paused by request")


def resume(session: Session, job_id: str) -> tuple[Job, Outcome]:
    """Puts a paused job back into the queue; takes back a pause that has not happened yet. Raises QueueLimitReached."""
    job = _locked(session, job_id)
    match Status(job.status):
        case Status.QUEUED:
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested in (None, "preempt"):
            return job, Outcome.ALREADY
        case Status.RUNNING if job.stop_requested == "pause":
            job.stop_requested = None
            record_event(session, job, "job.stop_withdrawn", "the pause was taken back", {"stop": "pause"})
            return job, Outcome.APPLIED
        case Status.PAUSED:
            refuse_over_limit(session, job.owner_id)
            return job, move(session, job, Status.QUEUED, "resumed by request")
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
    """Changes what may be changed of a stored job: its name, labels and priority, and before it has started what it waits for.

    ``permit`` is asked first, and raises what stands against a change of the job as it is.

    Raises:
        InvalidSpec: a job that it is to depend on does not exist, or can no longer succeed.
        CircularDependency: that job waits for this one.
        InvalidTransition: it has started already.
    """
    needs: Sequence[Job] = ()
    if depends_on is not None:
        permit(known := get(session, job_id))
        # Two changes at once could close a circle that neither sees. And whoever ends a job locks it first, those that wait for
        # it second: so must this.
        session.execute(select(func.pg_advisory_xact_lock(_DEPENDENCY_LOCK)))
        needs = _hold_needs(session, JobSpec.model_validate({**known.spec, "depends_on": list(depends_on)}))
    job = _locked(session, job_id)
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
        job.priority = job.queue_class = PRIORITY_RANK[priority]
        job.reserved_worker_id = None
    if depends_on is not None:
        changed["depends_on"] = list(depends_on)
        _depend(session, job, needs)
    if changed:
        job.spec = {**job.spec, **changed}
        record_event(session, job, "job.edited", f"changed {', '.join(changed)}", changed)
    return job


def remove(session: Session, job_id: str) -> list[str]:
    """Deletes a finished job; answers the store's keys of its files, to be removed once this is committed.

    Raises:
        NotFound: there is no such job.
        Conflict: it has not finished, or its student teaches a job that has not.
    """
    job = _locked(session, job_id)
    if Status(job.status) not in FINAL:
        raise Conflict(f"job {job_id} is {job.status}; cancel it first, then delete it")
    # Who submits a job with this student as its teacher holds the model's row, not this job's.
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
    paths = list(session.scalars(select(Artifact.path).where(Artifact.job_id == job_id)))
    session.delete(job)
    return paths


# ---------------------------------------------------------------- a running attempt


def renew_lease(session: Session, fence: Fence, *, lease_seconds: float) -> Renewal | None:
    """The heartbeat: moves the lease's end by the database's clock. None: the lease is lost."""
    row = session.execute(
        update(Job)
        .where(*_holds(fence))
        .values(lease_expires_at=now_sql(session) + text("make_interval(secs => :lease)").bindparams(lease=lease_seconds))
        .returning(Job.stop_requested, Job.stop_keep, Job.started_at, Job.accounted_seconds, now_sql(session).label("now"))
    ).one_or_none()
    if row is None:
        return None
    if usage.is_due(row.started_at, row.accounted_seconds, at=row.now) and (job := _fenced(session, fence)) is not None:
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
    """Stores the newest progress; ``milestone`` is the sentence of an event row, for what is worth one.

    ``remaining_seconds`` is what the whole job still takes by its measured steps, None where that is not known yet; no
    job is expected to run longer than it may.
    """
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    job.progress = progress
    if remaining_seconds is not None:
        at = now(session)
        ran = job.run_seconds + ((at - job.started_at).total_seconds() if job.started_at else 0.0)
        left = max(0.0, job.max_runtime_seconds - ran)
        job.expected_end_at = at + timedelta(seconds=min(remaining_seconds, left))
    if milestone is None:
        _touch(session, job)
    else:
        record_event(session, job, "progress", milestone, progress)
    return Outcome.APPLIED


def record_metrics(session: Session, fence: Fence, points: Mapping[str, Sequence[tuple[int, float]]]) -> Outcome:
    """Adds points; a step that is there already gets the new value."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    rows = [
        {"job_id": job.id, "name": name, "step": step, "value": value}
        for name, series in points.items()
        for step, value in dict(series).items()
    ]
    if not rows:
        return Outcome.APPLIED
    statement = insert(MetricPoint)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[MetricPoint.job_id, MetricPoint.name, MetricPoint.step], set_={"value": statement.excluded.value}
        ),
        rows,
    )
    latest = {name: max(series)[1] for name, series in points.items() if series}
    record_event(
        session, job, "metrics", ", ".join(f"{name} {value:.4g}" for name, value in latest.items()), {"points": dict(points)}
    )
    return Outcome.APPLIED


def append_log(session: Session, fence: Fence, addition: str) -> Outcome:
    """Adds to the job's log, up to ``MAX_LOG_BYTES`` in all; the whole log is an artifact at the end."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    last = session.scalar(select(LogChunk).where(LogChunk.job_id == job.id).order_by(LogChunk.start.desc()).limit(1))
    start = 0 if last is None else last.start + last.size
    data = addition.encode()[: max(0, MAX_LOG_BYTES - start)]
    kept = data.decode(errors="ignore")
    if kept:
        session.add(LogChunk(job_id=job.id, start=start, text=kept, size=len(kept.encode())))
        _touch(session, job)
    return Outcome.APPLIED


def log_text(session: Session, job_id: str) -> str:
    """The whole log that is kept of a job, all attempts in order."""
    chunks = session.scalars(select(LogChunk.text).where(LogChunk.job_id == job_id).order_by(LogChunk.start))
    return "".join(chunks)


def record_checkpoint(session: Session, fence: Fence, file: StoredFile, *, phase: str, step: int) -> tuple[Outcome, str | None]:
    """Makes a stored checkpoint the one to resume from; beside the outcome, the key of the one that it replaces."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST, None
    old = session.get(Artifact, (job.id, file.name))
    replaced = None
    if old is not None:
        replaced = old.path
        session.delete(old)
        session.flush()
    session.add(_artifact(job, file, kind="checkpoint"))
    record_event(session, job, "checkpoint", f"checkpoint at step {step} of the {phase} phase", {"phase": phase, "step": step})
    return Outcome.APPLIED, replaced if replaced != file.path else None


def succeed(session: Session, fence: Fence, *, result: dict[str, Any], files: Iterable[StoredFile], model: Model) -> Outcome:
    """running → succeeded: publishes the artifacts and lists the student as a model."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    job.result = result
    _publish(session, job, files, model)
    if job.progress is not None:
        job.progress = {**job.progress, "fraction": 1.0, "eta_seconds": 0.0}
    return move(session, job, Status.SUCCEEDED, "the student is trained")


def fail(
    session: Session, fence: Fence, failure: JobFailure, *, files: Iterable[StoredFile] = (), model: Model | None = None
) -> Outcome:
    """running → failed, for what another attempt cannot mend; ``model`` is the student as far as it came, if it is kept."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    _publish(session, job, files, model)
    return end_failed(session, job, failure)


def settle_stopped(
    session: Session, fence: Fence, *, reason: str, files: Iterable[StoredFile] = (), model: Model | None = None
) -> Outcome:
    """The trainer stopped because it was asked to, for ``reason``: to cancelled, to paused, or back to the queue.

    What people ask for by now decides: it may be more than the trainer had heard of, or a pause that was taken back. ``model`` is
    the student that a cancel keeps, if any.
    """
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    _publish(session, job, files, model)
    match job.stop_requested:
        case "cancel":
            return move(session, job, Status.CANCELLED, "cancelled by request" if model is not None else _NOTHING_KEPT)
        case "pause":
            return move(session, job, Status.PAUSED, "paused by request")
        case _:
            return _requeue(session, job, f"stopped {_STOPPED.get(reason, 'by request')}; goes on from its last checkpoint")


def crash(session: Session, fence: Fence, failure: JobFailure, *, files: Iterable[StoredFile] = ()) -> Outcome:
    """The attempt ended by no wish of anybody: back to the queue, or failed once ``max_attempts`` are used up."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    return _crash(session, job, failure, files)


# ---------------------------------------------------------------- the sweep


def expire_leases(session: Session) -> int:
    """Every running job whose worker fell silent: on to another attempt, or failed with ``worker_lost``. Answers how many."""
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
        _crash(session, job, JobFailure(code="worker_lost", message=message, hint=hint), ())
    return len(lost)


def spent_checkpoints(session: Session) -> dict[str, str]:
    """The store's keys of checkpoints that no attempt will resume from, by job; some of them, where there are many."""
    rows = session.execute(select(Artifact.job_id, Artifact.path).where(Artifact.kind == "spent").limit(100))
    return {row.job_id: row.path for row in rows}


def forget_checkpoints(session: Session, spent: Mapping[str, str]) -> None:
    """Removes the rows of :func:`spent_checkpoints`, whose files are gone."""
    session.execute(delete(Artifact).where(Artifact.kind == "spent", Artifact.job_id.in_(spent)))


# ---------------------------------------------------------------- below: in the order of their calls


def shape_of(gpus: int, cpu_slots: int, min_gpu_memory_gib: float | None) -> str:
    """What a job holds of a host, as one word: equal for equal needs."""
    return f"gpu:{gpus}:{whole_gib(min_gpu_memory_gib or 0.0)}" if gpus else f"cpu:{cpu_slots}"


def pass_on(session: Session, job: Job, data: dict[str, Any] | None = None) -> Outcome:
    """Moves a job on that is checked, or whose needs have changed: to the queue, or to wait for other jobs; one that needs a job
    which has ended otherwise fails with it."""
    query = select(Job).join(JobDependency, JobDependency.needs_job_id == Job.id).where(JobDependency.job_id == job.id)
    with session.no_autoflush:  # the row is to be written as a whole
        # FOR SHARE: none of them can finish between this look and our commit.
        needs = session.scalars(query.order_by(Job.id).with_for_update(read=True, of=Job)).all()
    lost = next((needed for needed in needs if needed.status in {Status.FAILED, Status.CANCELLED}), None)
    if lost is not None:
        return end_failed(session, job, _dependency_failed(lost))
    status, reason = _by_needs(needs)
    if status != job.status:
        return move(session, job, status, reason, data)
    job.status_reason = reason
    return Outcome.ALREADY


def _by_needs(needs: Iterable[Job]) -> tuple[Status, str]:
    """Where a job stands that is ready but for these, and why."""
    unfinished = [needed.id for needed in needs if needed.status != Status.SUCCEEDED]
    return (Status.WAITING, f"waits for {', '.join(unfinished)}") if unfinished else (Status.QUEUED, "queued")


def _depend(session: Session, job: Job, needs: Sequence[Job]) -> None:
    if Status(job.status) not in _UNSTARTED or job.attempt:
        raise InvalidTransition(f"job {job.id} is {job.status}: what it depends on can be changed before it starts alone")
    if circle := _circle(session, job.id, [needed.id for needed in needs]):
        raise CircularDependency(
            f"{' needs '.join(circle)}: none of them could ever start; leave {circle[1]} out", param="/depends_on"
        )
    session.execute(delete(JobDependency).where(JobDependency.job_id == job.id))
    session.add_all(JobDependency(job_id=job.id, needs_job_id=needed.id) for needed in needs)
    session.flush()
    if job.status == Status.CHECKING:
        return
    pass_on(session, job)


def _circle(session: Session, job_id: str, needs: Sequence[str]) -> list[str] | None:
    """A way from the job back to itself through these needs, if there is one."""
    came_from = dict.fromkeys(needs, job_id)
    open_ends = list(needs)
    while open_ends:
        if job_id in came_from:
            way = [job_id]
            while True:
                way.append(came_from[way[-1]])
                if way[-1] == job_id:
                    break
            return way[::-1]
        query = select(JobDependency.job_id, JobDependency.needs_job_id).where(JobDependency.job_id.in_(open_ends))
        further = {row.needs_job_id: row.job_id for row in session.execute(query) if row.needs_job_id not in came_from}
        came_from |= further
        open_ends = list(further)
    return None


def _hold_needs(session: Session, spec: JobSpec) -> list[Job]:
    found, faults = needed_jobs(session, spec, lock=True)
    if faults:
        raise InvalidSpec(faults)
    return found


def _locked(session: Session, job_id: str) -> Job:
    return get(session, job_id, lock=True)


def _holds(fence: Fence) -> tuple[Any, ...]:
    return Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.RUNNING


def _fenced(session: Session, fence: Fence) -> Job | None:
    return session.scalar(select(Job).where(*_holds(fence)).with_for_update().execution_options(populate_existing=True))


def _crash(session: Session, job: Job, failure: JobFailure, files: Iterable[StoredFile]) -> Outcome:
    job.crashes += 1
    if job.stop_requested == "cancel":
        return move(session, job, Status.CANCELLED, f"{_NOTHING_KEPT}; the attempt had ended: {failure.message}")
    if job.crashes >= job.max_attempts:
        _publish(session, job, files)
        return end_failed(session, job, failure)
    if job.stop_requested == "pause":
        return move(session, job, Status.PAUSED, f"paused by request; the attempt had ended: {failure.message}")
    return _requeue(session, job, f"attempt {job.attempt} ended: {failure.message}; goes on from its last checkpoint", failure)


def _requeue(session: Session, job: Job, reason: str, failure: JobFailure | None = None) -> Outcome:
    data = {} if failure is None else {"error": failure.model_dump()}
    return move(session, job, Status.QUEUED, reason, data)


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
            end_failed(session, dependent, _dependency_failed(job))
            continue
        open_needs = session.scalar(
            select(func.count())
            .select_from(JobDependency)
            .join(Job, Job.id == JobDependency.needs_job_id)
            .where(JobDependency.job_id == dependent.id, Job.status != Status.SUCCEEDED, Job.id != job.id)
        )
        if not open_needs:
            move(session, dependent, Status.QUEUED, "the jobs that it needs have succeeded")


def _dependency_failed(needed: Job) -> JobFailure:
    return JobFailure(
        code="dependency_failed",
        message=f"job {needed.id}, which it needs, is {needed.status}",
        hint="Mend and repeat that job, then submit this one again with the new id.",
    )


def _publish(session: Session, job: Job, files: Iterable[StoredFile], model: Model | None = None) -> None:
    if model is not None:
        session.add(model)
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


def record_event(session: Session, job: Job, type_: str, message: str, data: dict[str, Any] | None = None) -> None:
    """Appends to the audit of a job whose row the caller holds locked."""
    job.last_event_seq += 1
    session.add(JobEvent(job_id=job.id, seq=job.last_event_seq, type=type_, message=message, data=data or {}))
    _touch(session, job)


def _touch(session: Session, job: Job) -> None:
    """Marks the job as changed: its ETag, and the news that goes out after the commit."""
    job.version += 1
    session.info.setdefault("changed_jobs", set()).add(job.id)
