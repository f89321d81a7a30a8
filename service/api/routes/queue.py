"""The shared queue: what waits, what runs, and on whom."""

from typing import Annotated

from fastapi import APIRouter, Query

from service import queries
from service.api.bodies import StrictRoute
from service.api.dependencies import ServicesOf, Viewer
from service.api.views.jobs import PRIORITY_NAMES
from service.api.views.queue import DeviceView, QueueView, RunningJob, WaitingJob, WorkerList, WorkerView
from service.tables import Job, Worker

router = APIRouter(prefix="/v1", tags=["queue"], route_class=StrictRoute)


@router.get("/queue")
def get_queue(
    _caller: Viewer, services: ServicesOf, pool: Annotated[str | None, Query(max_length=63, description="All by default.")] = None
) -> QueueView:
    """The waiting jobs in the order in which they would start, and the running ones."""
    with services.database.transaction() as session:
        queue = queries.queue(session, pool=pool, lease_seconds=services.settings.lease_seconds)
    return QueueView(
        waiting=[_waiting(row) for row in queue.waiting],
        num_waiting=queue.num_waiting,
        running=[_running(job, owner) for job, owner in queue.running],
    )


@router.get("/workers")
def list_workers(_caller: Viewer, services: ServicesOf) -> WorkerList:
    """The worker processes, their devices and the jobs on them."""
    with services.database.transaction() as session:
        rows = queries.workers(session, lease_seconds=services.settings.lease_seconds)
    return WorkerList(data=[_worker(row.worker, row.jobs, is_alive=row.is_alive) for row in rows])


def _waiting(row: queries.JobRow) -> WaitingJob:
    job, place = row.job, row.place
    assert place is not None
    assert job.queued_at is not None
    return WaitingJob(
        id=job.id,
        name=job.name,
        owner=row.owner,
        pool=job.pool,
        priority=PRIORITY_NAMES[job.priority],
        position=place.position,
        waiting_for=place.waiting_for,
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
