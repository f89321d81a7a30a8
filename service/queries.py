"""Reads for the API: jobs, their events, metrics, logs and files. Nothing here changes a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, tuple_, union_all
from sqlalchemy.orm import Session, aliased, defer

from service import clock
from service.errors import NotFound
from service.lifecycle import FINAL, Status
from service.scheduling.explain import Place
from service.scheduling.queue_status_cache import QueueStatusCache
from service.scheduling.snapshot import live_workers, queued_by_pool
from service.tables import Artifact, Job, JobEvent, JobLabel, LogChunk, MetricPoint, User, Worker

_LEAN = tuple(defer(column, raiseload=True) for column in (Job.spec, Job.result, Job.estimate, Job.warnings))
"""Loads a job without its large columns, which no list of the queue shows."""


@dataclass(frozen=True)
class JobRow:
    """A job with values from other tables."""

    job: Job
    owner: str
    place: Place | None


@dataclass(frozen=True)
class Queue:
    """The waiting jobs in their order, pool by pool, and the running ones, each with its owner's name."""

    waiting: list[JobRow]
    num_waiting: int
    running: list[tuple[Job, str]]


@dataclass(frozen=True)
class WorkerRow:
    """A worker and the jobs that it runs."""

    worker: Worker
    jobs: list[Job]
    is_alive: bool


@dataclass(frozen=True)
class JobFilter:
    """A filter for lists of jobs; an empty field admits every job."""

    statuses: tuple[str, ...] = ()
    owner_id: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


def job_row(session: Session, job_id: str, queue_status_cache: QueueStatusCache) -> JobRow:
    """Reads one job. Raises NotFound."""
    row = session.execute(_jobs().where(Job.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    job, owner = row
    return JobRow(job=job, owner=owner, place=queue_status_cache.place(session, job))


def page_ids(wanted: JobFilter, *, after: Any, limit: Any) -> Select[str]:
    """Selects the ids of the first ``limit`` jobs, newest first, from the one after ``after`` on. Parameters may be bound later.

    Ids grow with time, so the page starts by an index search, however deep it is.
    """
    found = _found(wanted, after=after, most=limit)
    query = select(Job.id) if found is None else select(found.subquery().c[0].label("id"))
    return _before(query, after).order_by(query.selected_columns[0].desc()).limit(limit)


def events(session: Session, job_id: str, *, after: int, limit: int) -> tuple[list[JobEvent], bool]:
    """Reads events in their order, from the one after ``after`` on, and whether there are more. Raises NotFound."""
    is_final(session, job_id)
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).order_by(JobEvent.seq).limit(limit + 1)
    rows = list(session.scalars(query))
    return rows[:limit], len(rows) > limit


def timeline(session: Session, job_id: str, *, limit: int) -> list[JobEvent]:
    """Reads the last events of a job that are no mere progress: its transitions and checkpoints, in their order."""
    milestones = JobEvent.type.not_in(("progress", "metrics"))
    query = select(JobEvent).where(JobEvent.job_id == job_id, milestones).order_by(JobEvent.seq.desc()).limit(limit)
    return list(session.scalars(query))[::-1]


def is_final(session: Session, job_id: str) -> bool:
    """Whether the job has ended. Raises NotFound.

    Call this first and read second: everything of an ended job was committed with its end, or before.
    """
    status = session.scalar(select(Job.status).where(Job.id == job_id))
    if status is None:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    return status in FINAL


def metrics(session: Session, job_id: str, *, names: Sequence[str], max_points: int | None) -> dict[str, list[tuple[int, float]]]:
    """Reads points (step, value) by metric name, thinned to ``max_points`` each. Raises NotFound."""
    is_final(session, job_id)
    query = select(MetricPoint.name, MetricPoint.step, MetricPoint.value).where(MetricPoint.job_id == job_id)
    if names:
        query = query.where(MetricPoint.name.in_(names))
    series: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in session.execute(query.order_by(MetricPoint.name, MetricPoint.step)):
        series.setdefault(name, []).append((step, value))
    return {name: thinned(points, max_points) for name, points in series.items()}


def thinned(points: list[tuple[int, float]], max_points: int | None) -> list[tuple[int, float]]:
    """Selects at most ``max_points`` (2 or more) of the points, evenly spread, the first and the last among them."""
    if max_points is None or len(points) <= max_points:
        return points
    last = len(points) - 1
    return [points[round(index * last / (max_points - 1))] for index in range(max_points)]


def log_size(session: Session, job_id: str) -> int:
    """Size of the log so far, in bytes. Raises NotFound."""
    is_final(session, job_id)
    query = select(LogChunk.start + LogChunk.size).where(LogChunk.job_id == job_id).order_by(LogChunk.start.desc()).limit(1)
    return session.scalar(query) or 0


def log_bytes(session: Session, job_id: str, *, start: int, end: int | None = None) -> bytes:
    """Reads the log's bytes from ``start`` up to ``end``, in UTF-8."""
    query = select(LogChunk).where(LogChunk.job_id == job_id, LogChunk.start + LogChunk.size > start)
    if end is not None:
        query = query.where(LogChunk.start < end)
    chunks = session.scalars(query.order_by(LogChunk.start)).all()
    if not chunks:
        return b""
    data = b"".join(chunk.text.encode() for chunk in chunks)
    first = chunks[0].start
    return data[max(0, start - first) : None if end is None else end - first]


def log_tail_start(session: Session, job_id: str, *, lines: int) -> int:
    """Offset of the last ``lines`` lines of the log, in bytes."""
    if lines == 0:
        return log_size(session, job_id)
    missing = lines
    query = select(LogChunk).where(LogChunk.job_id == job_id).order_by(LogChunk.start.desc())
    is_last = True
    with session.scalars(query.execution_options(yield_per=16)) as chunks:
        for chunk in chunks:
            data = chunk.text.encode()
            # The newline at the very end ends a line and begins none.
            position = len(data) - 1 if is_last and data.endswith(b"\n") else len(data)
            is_last = False
            while (position := data.rfind(b"\n", 0, position)) >= 0:
                missing -= 1
                if missing == 0:
                    return chunk.start + position + 1
    return 0


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """Reads the files that a job published, by name. Raises NotFound."""
    is_final(session, job_id)
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind == "result").order_by(Artifact.name)
    return session.scalars(query).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact:
    """Reads one published file. Raises NotFound."""
    is_final(session, job_id)
    found = session.get(Artifact, (job_id, name))
    if found is None or found.kind != "result":
        raise NotFound(f"job {job_id} has no artifact {name!r}; GET /v1/jobs/{job_id}/artifacts lists what it has")
    return found


def queue(session: Session, queue_status_cache: QueueStatusCache, *, pool: str | None) -> Queue:
    """Reads the first waiting jobs of a pool, or of each pool, in their order, and the running ones."""
    pools = [pool] if pool is not None else pools_in_use(session)
    waiting: list[JobRow] = []
    num_waiting = 0
    for name in pools:
        queue_status = queue_status_cache.of(session, name)
        still = _without_specs().where(Job.id.in_(queue_status.places), Job.status == Status.QUEUED)
        found = {job.id: (job, owner) for job, owner in session.execute(still)}
        waiting += [JobRow(*found[job_id], place) for job_id, place in queue_status.places.items() if job_id in found]
        num_waiting += queue_status.num_waiting - (len(queue_status.places) - len(found))
    of_pool = [] if pool is None else [Job.pool == pool]
    query = _without_specs().where(Job.status == Status.RUNNING, *of_pool).order_by(Job.started_at, Job.id)
    return Queue(waiting, num_waiting, running=[(job, owner) for job, owner in session.execute(query)])


def pools_in_use(session: Session) -> list[str]:
    """Reads the pools in which jobs wait for devices or run."""
    running = session.scalars(select(Job.pool).where(Job.status == Status.RUNNING).distinct())
    return sorted({*queued_by_pool(session, most=1), *running})


def workers(session: Session, *, lease_seconds: float, memory_seconds: float) -> list[WorkerRow]:
    """Reads the workers that have not ended, and whose last heartbeat is younger than ``memory_seconds``, by pool and host."""
    alive = {worker.id for worker in live_workers(session, lease_seconds=lease_seconds)}
    oldest = clock.now_sql(session) - clock.seconds_sql(memory_seconds)
    of_late = select(Worker).where(Worker.stopped_at.is_(None), Worker.heartbeat_at > oldest)
    known = session.scalars(of_late.order_by(Worker.pool, Worker.host, Worker.id)).all()
    running: dict[str | None, list[Job]] = {}
    query = select(Job).where(Job.status == Status.RUNNING).order_by(Job.started_at, Job.id)
    for job in session.scalars(query.options(*_LEAN)):
        running.setdefault(job.worker_id, []).append(job)
    return [WorkerRow(worker=worker, jobs=running.get(worker.id, []), is_alive=worker.id in alive) for worker in known]


def _before(query: Select[str], after: Any) -> Select[str]:
    return query if after is None else query.where(query.selected_columns[0] < after)


def _found(wanted: JobFilter, *, after: Any, most: Any) -> Select[str] | None:
    """Finds the newest jobs by a filter, each status by an index search of its own; None for an empty filter."""
    if not (wanted.statuses or wanted.labels or wanted.owner_id is not None):
        return None
    searches = [_newest(wanted.owner_id, status, wanted.labels, after, most) for status in wanted.statuses or (None,)]
    return searches[0] if len(searches) == 1 else select(union_all(*searches).subquery().c[0])


def _newest(owner_id: Any, status: Any, labels: Sequence[tuple[Any, Any]], after: Any, most: Any) -> Select[str]:
    """Selects in the order of one index, by bounds instead of equalities.

    With equalities PostgreSQL may read the jobs from the newest on until it has found enough, which may be far.
    """
    of_job = [(column, value) for column, value in ((Job.owner_id, owner_id), (Job.status, status)) if value is not None]
    if not labels:
        return _last(select(Job.id), of_job, Job.id, after).limit(most)
    first, *others = labels
    search = select(JobLabel.job_id)
    if of_job:
        search = search.join(Job, Job.id == JobLabel.job_id).where(*(column == value for column, value in of_job))
    for key, value in others:
        label = aliased(JobLabel)
        search = search.where(label.job_id == JobLabel.job_id, label.key == key, label.value == value)
    return _last(search, [(JobLabel.key, first[0]), (JobLabel.value, first[1])], JobLabel.job_id, after).limit(most)


def _last(search: Select[str], fixed: list[tuple[Any, Any]], id_: Any, after: Any) -> Select[str]:
    columns, values = [column for column, _ in fixed], [value for _, value in fixed]
    search = search.where(tuple_(*columns) >= tuple_(*values))
    if after is None:
        search = search.where(tuple_(*columns) <= tuple_(*values))
    else:
        search = search.where(tuple_(*columns, id_) < tuple_(*values, after))
    return search.order_by(*(column.desc() for column in columns), id_.desc())


def _jobs() -> Select[Job, str]:
    return select(Job, User.name).join(User)


def _without_specs() -> Select[Job, str]:
    return _jobs().options(*_LEAN)
