"""The claim: a worker offers its free devices, and gets the first job in the queue that may start on them.

Claims of one pool are serialised by an advisory lock: they are rare, and their decision spans rows (fair shares, limits,
reservations), which row locks alone would not protect.
"""

import hashlib
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.jobs import Fence, transitions
from service.lifecycle import Status
from service.scheduling.hosts import Device, Holder, Host
from service.scheduling.policy import Placement, Reservation, Snapshot
from service.scheduling.snapshot import hold_known, host_of, num_running, take_snapshot
from service.tables import Job, User, Worker


@dataclass(frozen=True)
class Offer:
    """The devices that a worker has free at this moment."""

    worker_id: str
    pool: str
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Claim:
    """A job that belongs to this worker until its lease ends."""

    fence: Fence
    job: Job
    devices: tuple[str, ...]


def claim(session: Session, offer: Offer, *, lease_seconds: float) -> Claim | None:
    """queued → running for the first job that may start on the offered devices: attempt + 1, the worker, the lease.

    Its owner is charged at once. None: no job that may start fits, or the worker drains.
    """
    if not offer.devices:
        return None
    lock_pool(session, offer.pool)
    worker = session.get(Worker, offer.worker_id, populate_existing=True)
    if worker is None or worker.draining:
        return None
    host = _offering(worker, offer)
    pool = take_snapshot(session, offer.pool, lease_seconds=lease_seconds, hosts=[host])
    if any(reservation.worker_id == host.worker_id for reservation in pool.reservations):
        hold_known(session, host, now=pool.now)
    claimed = None
    while claimed is None and (placement := pool.next_for(host)) is not None:
        claimed = _take(session, placement, pool, lease_seconds=lease_seconds)
        if claimed is None:
            pool.take_out(placement.job)
    reserve(session, [each for each in pool.new_reservations if claimed is None or each.job.id != claimed.job.id])
    return claimed


def lock_pool(session: Session, pool: str) -> None:
    """Locks the pool's queue until the transaction ends, and expires all objects that were read before."""
    key = int.from_bytes(hashlib.sha256(f"pool {pool}".encode()).digest()[:8], "big", signed=True)
    session.execute(select(func.pg_advisory_xact_lock(key)))
    session.expire_all()


def reserve(session: Session, reservations: list[Reservation], *, why: str = "it has waited long") -> None:
    """Stores reservations on their jobs; skips a job that is no longer queued, or locked."""
    for reservation in reservations:
        job = session.scalar(
            select(Job).where(Job.id == reservation.job.id, Job.status == Status.QUEUED).with_for_update(skip_locked=True)
        )
        if job is None or job.reserved_worker_id == reservation.worker_id:
            continue
        job.reserved_worker_id = reservation.worker_id
        host = session.scalar(select(Worker.host).where(Worker.id == reservation.worker_id))
        message = f"host {host} is kept free for it, which needs {reservation.job.need}: {why}"
        transitions.record_event(session, job, "job.host_kept", message, {"worker": reservation.worker_id, "host": host})


def _offering(worker: Worker, offer: Offer) -> Host:
    host = host_of(worker)
    free = {device.name for device in offer.devices}
    known = {device.name for device in host.devices}
    host.devices += tuple(device for device in offer.devices if device.name not in known)
    # What the worker does not offer is not free, though nobody may be known to hold it: a trainer may just be ending.
    ending = Holder("", "", worker.started_at, worker.started_at)
    host.held = {device.name: ending for device in host.devices if device.name not in free}
    return host


def _take(session: Session, placement: Placement, pool: Snapshot, *, lease_seconds: float) -> Claim | None:
    """None: somebody changes the job at this moment, or its owner's limit was reached in another pool."""
    devices = [device.name for device in placement.devices]
    share = pool.shares[placement.job.owner_id]
    if share.max_running is not None:
        # Claims in other pools count too: who has a limit is served one at a time.
        with session.begin_nested() as since:
            session.execute(select(User.id).where(User.id == share.owner_id).with_for_update(key_share=True))
            share.running = num_running(session, [share.owner_id]).get(share.owner_id, 0)
            if share.is_full:
                since.rollback()  # lets the owner go: two claims that hold each other's next would wait for ever
                return None
    query = select(Job).where(Job.id == placement.job.id, Job.status == Status.QUEUED)
    job = session.scalar(query.with_for_update(skip_locked=True).execution_options(populate_existing=True))
    if job is None:
        return None
    transitions.start(session, job, worker_id=placement.host.worker_id, devices=devices, at=pool.now, lease_seconds=lease_seconds)
    return Claim(Fence(job.id, job.attempt), job, tuple(devices))
