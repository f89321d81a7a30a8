"""What readers ask of the database: jobs, their events, metrics, logs and files. Nothing here changes a row."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.lifecycle import FINAL, Status
from service.tables import Artifact, Job, JobEvent, LogChunk, MetricPoint, User, Worker
from service.waiting import Place, live_workers, places

MAX_QUEUE_ROWS = 1000


@dataclass(frozen=True)
class JobRow:
    """A job with what is known of it beside its own row."""

    job: Job
    owner: str
    place: Place | None


@dataclass(frozen=True)
class Queue:
    """What waits, in the order in which it would start, and what runs, each with its owner's name."""

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
    """Which jobs to list; an empty field asks for nothing."""

    statuses: Sequence[str] = ()
    owner: str | None = None
    labels: Sequence[tuple[str, str]] = ()


def job_row(session: Session, job_id: str, *, lease_seconds: float) -> JobRow:
    """One job. Raises NotFound."""
    rows = _rows(session, select(Job, User.name).join(User).where(Job.id == job_id), lease_seconds=lease_seconds)
    if not rows:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    return rows[0]


def job_page(
    session: Session, wanted: JobFilter, *, after: str | None, limit: int, lease_seconds: float
) -> tuple[list[JobRow], bool]:
    """Jobs, newest first, from the one after ``after`` on; True beside them when there are more.

    Ids grow with time, so the page starts by an index search, however deep it is.
    """
    query = select(Job, User.name).join(User)
    if wanted.statuses:
        query = query.where(Job.status.in_(wanted.statuses))
    if wanted.owner is not None:
        query = query.where(Job.owner_id == select(User.id).where(User.name == wanted.owner).scalar_subquery())
    for key, value in wanted.labels:
        query = query.where(Job.labels.contains({key: value}))
    if after is not None:
        query = query.where(Job.id < after)
    rows = _rows(session, query.order_by(Job.id.desc()).limit(limit + 1), lease_seconds=lease_seconds)
    return rows[:limit], len(rows) > limit


def events(session: Session, job_id: str, *, after: int, limit: int) -> tuple[list[JobEvent], bool]:
    """Events in their order, from the one after ``after`` on; True beside them when there are more. Raises NotFound."""
    is_final(session, job_id)
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).order_by(JobEvent.seq).limit(limit + 1)
    rows = list(session.scalars(query))
    return rows[:limit], len(rows) > limit


def is_final(session: Session, job_id: str) -> bool:
    """Whether the job has ended. Raises NotFound.

    Ask this first and read second: all that belongs to an ended job was committed with its end, or before.
    """
    status = session.scalar(select(Job.status).where(Job.id == job_id))
    if status is None:
        raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
    return status in FINAL


def metrics(session: Session, job_id: str, *, names: Sequence[str], max_points: int | None) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) by metric name, thinned to ``max_points`` each. Raises NotFound."""
    is_final(session, job_id)
    query = select(MetricPoint.name, MetricPoint.step, MetricPoint.value).where(MetricPoint.job_id == job_id)
    if names:
        query = query.where(MetricPoint.name.in_(names))
    series: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in session.execute(query.order_by(MetricPoint.name, MetricPoint.step)):
        series.setdefault(name, []).append((step, value))
    return {name: thinned(points, max_points) for name, points in series.items()}


def thinned(points: list[tuple[int, float]], max_points: int | None) -> list[tuple[int, float]]:
    """At most ``max_points`` (2 or more) of the points, evenly spread, the first and the last among them."""
    if max_points is None or len(points) <= max_points:
        return points
    last = len(points) - 1
    return [points[round(index * last / (max_points - 1))] for index in range(max_points)]


def log_size(session: Session, job_id: str) -> int:
    """Bytes of the log so far. Raises NotFound."""
    is_final(session, job_id)
    query = select(LogChunk.start + LogChunk.size).where(LogChunk.job_id == job_id).order_by(LogChunk.start.desc()).limit(1)
    return session.scalar(query) or 0


def log_bytes(session: Session, job_id: str, *, start: int, end: int | None = None) -> bytes:
    """The log's bytes from ``start`` up to ``end``, in UTF-8."""
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
    """Where the last ``lines`` lines of the log begin, in bytes."""
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
    """The files that a job published, by name. Raises NotFound."""
    is_final(session, job_id)
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind == "result").order_by(Artifact.name)
    return session.scalars(query).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact:
    """One published file. Raises NotFound."""
    is_final(session, job_id)
    found = session.get(Artifact, (job_id, name))
    if found is None or found.kind != "result":
        raise NotFound(f"job {job_id} has no artifact {name!r}; GET /v1/jobs/{job_id}/artifacts lists what it has")
    return found


def queue(session: Session, *, pool: str | None, lease_seconds: float) -> Queue:
    """The first ``MAX_QUEUE_ROWS`` waiting jobs, and the running ones; of one pool, or of all."""
    of_pool = [] if pool is None else [Job.pool == pool]
    jobs = select(Job, User.name).join(User).where(*of_pool)
    waiting = jobs.where(Job.status == Status.QUEUED).order_by(Job.pool, Job.priority, Job.queued_at, Job.id)
    rows = _rows(session, waiting.limit(MAX_QUEUE_ROWS), lease_seconds=lease_seconds)
    num_waiting = session.scalar(select(func.count()).select_from(Job).where(Job.status == Status.QUEUED, *of_pool)) or 0
    running = session.execute(jobs.where(Job.status == Status.RUNNING).order_by(Job.started_at, Job.id)).all()
    return Queue(
        waiting=[row for row in rows if row.place is not None],
        num_waiting=num_waiting,
        running=[(job, owner) for job, owner in running],
    )


def workers(session: Session, *, lease_seconds: float) -> list[WorkerRow]:
    """The workers that have not ended, by pool and host."""
    alive = {worker.id for worker in live_workers(session, lease_seconds=lease_seconds)}
    known = session.scalars(select(Worker).where(Worker.stopped_at.is_(None)).order_by(Worker.pool, Worker.host, Worker.id)).all()
    running: dict[str | None, list[Job]] = {}
    for job in session.scalars(select(Job).where(Job.status == Status.RUNNING).order_by(Job.started_at, Job.id)):
        running.setdefault(job.worker_id, []).append(job)
    return [WorkerRow(worker=worker, jobs=running.get(worker.id, []), is_alive=worker.id in alive) for worker in known]


def _rows(session: Session, query: Select[Job, str], *, lease_seconds: float) -> list[JobRow]:
    found = [(job, owner) for job, owner in session.execute(query)]
    known = places(session, (job for job, _ in found), lease_seconds=lease_seconds)
    return [JobRow(job=job, owner=owner, place=known.get(job.id)) for job, owner in found]
