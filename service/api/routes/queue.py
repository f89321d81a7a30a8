"""Routes of the shared queue: waiting and running jobs, workers, usage."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from service import capacity, clock, queries, usage, workers
from service.api.bodies import StrictRoute
from service.api.dependencies import Admin, Services, ServicesOf, Viewer
from service.api.parameters import WorkerId
from service.api.problems import described
from service.api.responses.queue import (
    DeviceView,
    DrainRequest,
    QueueView,
    RunningJob,
    UsageList,
    UsageView,
    WaitingJob,
    WorkerList,
    WorkerView,
    blocker_view,
    start_view,
)
from service.errors import Forbidden, InvalidRequest, NotFound
from service.lifecycle import Priority
from service.scheduling.snapshot import need_of
from service.tables import Job, Worker

router = APIRouter(prefix="/v1", tags=["queue"], route_class=StrictRoute)


@router.get("/queue", responses=described(InvalidRequest))
def get_queue(
    _caller: Viewer, services: ServicesOf, pool: Annotated[str | None, Query(max_length=63, description="All by default.")] = None
) -> QueueView:
    """Returns the waiting jobs in the order in which they would start, each with what blocks it, and the running jobs."""

    def read(session: Session) -> queries.Queue:
        if pool is not None:
            _require_pool(session, pool, services)
        return queries.queue(session, services.queue_status_cache, pool=pool)

    queue = services.database.run(read)
    return QueueView(
        waiting=[_waiting(row) for row in queue.waiting],
        num_waiting=queue.num_waiting,
        running=[_running(job, owner) for job, owner in queue.running],
    )


@router.get("/workers")
def list_workers(_caller: Viewer, services: ServicesOf) -> WorkerList:
    """Returns the worker processes, their devices and the jobs on them; for a while also those whose heartbeats have stopped."""
    return WorkerList(data=[_worker(row.worker, row.jobs, is_alive=row.is_alive) for row in _workers(services)])


@router.post("/workers/{worker_id}/drain", responses=described(Forbidden, NotFound))
def drain_worker(worker_id: WorkerId, _caller: Admin, services: ServicesOf, request: DrainRequest | None = None) -> WorkerView:
    """Stops a worker from taking jobs until it ends or is undrained. May be repeated; the last request counts."""
    finish = (request or DrainRequest()).jobs == "finish"
    services.database.run(lambda session: workers.drain(session, worker_id, finish=finish))
    return _one(services, worker_id)


@router.post("/workers/{worker_id}/undrain", responses=described(Forbidden, NotFound))
def undrain_worker(worker_id: WorkerId, _caller: Admin, services: ServicesOf) -> WorkerView:
    """Lets a drained worker take jobs again."""
    worker = services.database.run(lambda session: workers.undrain(session, worker_id))
    services.broker.wake(worker.pool)
    return _one(services, worker_id)


@router.get("/usage", responses=described(InvalidRequest))
def get_usage(
    _caller: Viewer,
    services: ServicesOf,
    since: Annotated[datetime | None, Query(description="Counts whole hours from this one on; all time by default.")] = None,
) -> UsageList:
    """Returns the usage of every user, and their share of the total."""
    if since is not None and since.tzinfo is None:
        raise InvalidRequest("since needs a time zone, as in 2026-11-02T00:00:00Z", param="since")
    try:
        first_hour = None if since is None else usage.hour_of(since)
    except OverflowError as error:
        raise InvalidRequest("since lies outside the years 1 to 9999 in UTC", param="since") from error
    lines = services.database.run(lambda session: usage.consumption(session, since=first_hour, at=clock.now(session)))
    return UsageList(
        since=first_hour,
        data=[
            UsageView(
                user=line.user,
                gpu_seconds=line.gpu_seconds,
                cpu_slot_seconds=line.cpu_slot_seconds,
                jobs=line.jobs,
                share=line.share,
                weight=line.weight,
                fair_share=line.fair,
                decayed=line.decayed,
            )
            for line in lines
        ],
    )


def _require_pool(session: Session, pool: str, services: Services) -> None:
    known = sorted({*capacity.pools(session, services.settings.pools), *queries.pools_in_use(session)})
    if pool not in known:
        raise InvalidRequest(f"there is no pool {pool!r}; use {' or '.join(map(repr, known)) or 'none'}", param="pool")


def _workers(services: Services) -> list[queries.WorkerRow]:
    settings = services.settings
    leases = {"lease_seconds": settings.lease_seconds, "memory_seconds": settings.worker_memory_seconds}
    return services.database.run(lambda session: queries.workers(session, **leases))


def _one(services: Services, worker_id: str) -> WorkerView:
    row = next((row for row in _workers(services) if row.worker.id == worker_id), None)
    if row is None:
        raise NotFound(f"worker {worker_id!r} has ended; GET /v1/workers lists those that run")
    return _worker(row.worker, row.jobs, is_alive=row.is_alive)


def _waiting(row: queries.JobRow) -> WaitingJob:
    job, place = row.job, row.place
    assert place is not None
    assert job.queued_at is not None
    return WaitingJob(
        id=job.id,
        name=job.name,
        owner=row.owner,
        pool=job.pool,
        priority=Priority(job.priority).word,
        position=place.position,
        waiting_for=place.blocker.message,
        blocker=blocker_view(place.blocker),
        needs=str(need_of(job)),
        expected_start=start_view(place),
        queued_at=job.queued_at,
    )


def _running(job: Job, owner: str) -> RunningJob:
    assert job.worker_id is not None
    assert job.started_at is not None
    progress = job.progress or {}
    return RunningJob(
        id=job.id,
        name=job.name,
        owner=owner,
        pool=job.pool,
        worker=job.worker_id,
        devices=job.devices or [],
        started_at=job.started_at,
        expected_end_at=job.expected_end_at,
        phase=progress.get("phase"),
        fraction=progress.get("fraction"),
        eta_seconds=progress.get("eta_seconds"),
    )


def _worker(worker: Worker, jobs: list[Job], *, is_alive: bool) -> WorkerView:
    devices = [
        DeviceView(**device, job_ids=[job.id for job in jobs if device["name"] in (job.devices or [])])
        for device in worker.devices
    ]
    return WorkerView(
        id=worker.id,
        host=worker.host,
        pid=worker.pid,
        pool=worker.pool,
        slots=worker.slots,
        devices=devices,
        job_ids=[job.id for job in jobs],
        alive=is_alive,
        draining=worker.draining,
        started_at=worker.started_at,
        heartbeat_at=worker.heartbeat_at,
    )
