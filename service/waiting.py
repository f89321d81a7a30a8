"""Why a job waits: its place in its pool, and the one thing that it waits for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from service.lifecycle import Status
from service.scheduling import position
from service.tables import Job, JobDependency, Worker


@dataclass(frozen=True)
class Place:
    """Where a queued job stands."""

    position: int
    waiting_for: str


def places(session: Session, jobs: Iterable[Job], *, lease_seconds: float) -> dict[str, Place]:
    """The place of each queued job among ``jobs``, by id; two or three queries however many they are."""
    queued = [job for job in jobs if job.status == Status.QUEUED]
    if not queued:
        return {}
    positions = _positions(session, queued)
    workers = live_workers(session, lease_seconds=lease_seconds)
    return {
        job.id: Place(position=positions[job.id], waiting_for=waiting_for(job, workers)) for job in queued if job.id in positions
    }


def live_workers(session: Session, *, lease_seconds: float) -> Sequence[Worker]:
    """The workers whose heart beats: their last beat is younger than a lease."""
    oldest = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    return session.scalars(
        select(Worker).where(and_(Worker.stopped_at.is_(None), Worker.heartbeat_at > oldest)).order_by(Worker.id)
    ).all()


def suitable(job: Job, workers: Iterable[Worker]) -> list[Worker]:
    """The workers of the job's pool with a device that could hold it, free or not."""
    return [worker for worker in workers if worker.pool == job.pool and not worker.draining and _could_hold(worker, job)]


def waiting_for(job: Job, workers: Iterable[Worker]) -> str:
    """What a queued job waits for, in one sentence."""
    of_pool = [worker for worker in workers if worker.pool == job.pool]
    need = _need(job)
    if not of_pool:
        return f"a worker: none is alive in pool {job.pool!r}"
    if not any(_could_hold(worker, job) for worker in of_pool):
        return f"{need}: no worker of pool {job.pool!r} has one"
    if not suitable(job, of_pool):
        return f"{need}: every worker of pool {job.pool!r} that has one is draining"
    return f"{need} to become free in pool {job.pool!r}"


def open_needs(session: Session, job: Job) -> list[str]:
    """The unfinished jobs that this one depends on."""
    return list(
        session.scalars(
            select(JobDependency.needs_job_id)
            .join(Job, Job.id == JobDependency.needs_job_id)
            .where(JobDependency.job_id == job.id, Job.status != Status.SUCCEEDED)
            .order_by(JobDependency.needs_job_id)
        )
    )


def _positions(session: Session, queued: Sequence[Job]) -> dict[str, int]:
    if len(queued) == 1:  # counts along the index of the claim; the general query ranks every queued job
        place = position(session, queued[0])
        return {} if place is None else {queued[0].id: place}
    rank = func.row_number().over(partition_by=Job.pool, order_by=(Job.priority, Job.queued_at, Job.id)).label("rank")
    pools = {job.pool for job in queued}
    ranked = select(Job.id, rank).where(Job.status == Status.QUEUED, Job.pool.in_(pools)).subquery()
    chosen = select(ranked).where(ranked.c.id.in_([job.id for job in queued]))
    return {row.id: row.rank for row in session.execute(chosen)}


def _need(job: Job) -> str:
    if job.gpus == 0:
        return "a CPU slot"
    return "a GPU" if job.min_gpu_memory_gib is None else f"a GPU of {job.min_gpu_memory_gib:g} GiB or more"


def _could_hold(worker: Worker, job: Job) -> bool:
    if job.gpus == 0:
        return any(device["kind"] == "cpu" for device in worker.devices)
    return any(
        device["kind"] != "cpu" and (device.get("memory_gib") or 0.0) >= (job.min_gpu_memory_gib or 0.0)
        for device in worker.devices
    )
