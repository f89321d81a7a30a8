"""Who runs next: the claim, and the sweep that mends what a lost message or a lost worker left behind.

Claims of one pool are serialised by an advisory lock: they are rare, and what they decide on spans rows. Order: priority
class, then age. A requeued job keeps its age.
"""

import hashlib
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select, text
from sqlalchemy.orm import Session

from service.jobs import Fence, expire_leases, record_event
from service.lifecycle import Status
from service.tables import Job

_SWEEP_LOCK = 7_445_002


@dataclass(frozen=True)
class Device:
    """A device of a worker: ``cpu`` slots have no memory of their own."""

    name: str
    memory_gib: float | None = None


@dataclass(frozen=True)
class Offer:
    """What a worker has free at this moment."""

    worker_id: str
    pool: str
    cpu_slots: int
    gpus: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A job that is now this worker's, until its lease ends."""

    fence: Fence
    job: Job
    devices: tuple[str, ...]


def claim(session: Session, offer: Offer, *, lease_seconds: float) -> Claim | None:
    """queued → running for the best job that fits what is free: attempt + 1, the worker, the lease. None: nothing fits."""
    session.execute(select(func.pg_advisory_xact_lock(_pool_lock(offer.pool))))
    fits = []
    if offer.cpu_slots > 0:
        fits.append(Job.gpus == 0)
    if offer.gpus:
        largest = max(device.memory_gib or 0.0 for device in offer.gpus)
        fits.append(and_(Job.gpus == 1, or_(Job.min_gpu_memory_gib.is_(None), Job.min_gpu_memory_gib <= largest)))
    if not fits:
        return None
    job = session.scalar(
        select(Job)
        .where(Job.status == Status.QUEUED, Job.pool == offer.pool, or_(*fits))
        .order_by(Job.priority, Job.queued_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if job is None:
        return None
    devices = _devices(offer, job)
    job.started_at, job.lease_expires_at = session.execute(select(func.now(), func.now() + _seconds(lease_seconds))).one()
    job.attempt += 1
    job.worker_id = offer.worker_id
    job.devices = list(devices)
    job.status = Status.RUNNING
    job.status_reason = f"runs on {offer.worker_id}"
    record_event(
        session,
        job,
        "job.running",
        f"attempt {job.attempt} on {', '.join(devices)} of worker {offer.worker_id}",
        {"attempt": job.attempt, "worker": offer.worker_id, "devices": list(devices)},
    )
    return Claim(Fence(job.id, job.attempt), job, devices)


def sweep(session: Session) -> bool:
    """Takes jobs from silent workers. False: another process sweeps at this moment. Harmless to repeat."""
    if not session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))):
        return False
    expire_leases(session)
    return True


def queued_by_pool(session: Session) -> dict[str, int]:
    """How many jobs wait for a worker, by pool."""
    rows = session.execute(select(Job.pool, func.count().label("queued")).where(Job.status == Status.QUEUED).group_by(Job.pool))
    return {row.pool: row.queued for row in rows}


def position(session: Session, job: Job) -> int | None:
    """The place of a queued job in its pool, from 1; None for any other."""
    if job.status != Status.QUEUED:
        return None
    ahead = session.scalar(
        select(func.count())
        .select_from(Job)
        .where(
            Job.status == Status.QUEUED,
            Job.pool == job.pool,
            text("(priority, queued_at, id) < (:p, :q, :i)").bindparams(p=job.priority, q=job.queued_at, i=job.id),
        )
    )
    return (ahead or 0) + 1


def _pool_lock(pool: str) -> int:
    return int.from_bytes(hashlib.sha256(f"pool {pool}".encode()).digest()[:8], "big", signed=True)


def _seconds(amount: float) -> object:
    return text("make_interval(secs => :amount)").bindparams(amount=amount)


def _devices(offer: Offer, job: Job) -> tuple[str, ...]:
    """The smallest free GPU that is large enough, so that the large ones stay free; or a CPU slot."""
    if job.gpus == 0:
        return ("cpu",)
    enough = [device for device in offer.gpus if (device.memory_gib or 0.0) >= (job.min_gpu_memory_gib or 0.0)]
    return (min(enough, key=lambda device: device.memory_gib or 0.0).name,)
