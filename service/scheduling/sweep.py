"""The timer's work on the queue: jobs of silent workers, aging, preemption, reservations, wake-ups.

Every function is harmless to repeat, and skips what another process is doing at the moment.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import clock, previews
from service.jobs import expire_leases, extend_leases, transitions
from service.lifecycle import Outcome, Priority, Status
from service.preflight import expire_checks, unchecked_pools
from service.queue_policy import queue_policy_of
from service.scheduling.claim import lock_pool, reserve
from service.scheduling.policy import Snapshot
from service.scheduling.preemption import preemptions
from service.scheduling.snapshot import alive, queued_by_pool, take_snapshot
from service.tables import Job, Sweep, Worker

T = TypeVar("T")
_SWEEP_LOCK = 7_445_002
_SILENT_SHARE = 0.5
"""Share of the lease without a sweep after which leases may have expired that nobody could renew."""
_SILENT_SWEEPS = 6
_MOST = 1000
"""Rows of a kind that one sweep changes, at most; the next one continues."""
_MAX_PREEMPTING = 20
"""Jobs of high priority that one call preempts for, at most."""
_COUNTED = 64
"""Queued jobs of a pool that a sweep counts, at most: it sends no more wake-ups."""


def sweep(session: Session, *, lease_seconds: float) -> bool:
    """Takes jobs and checks from silent workers, and ages waiting jobs. False: another process is sweeping."""
    if not session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))):
        return False
    # In the lock order of a claim: rows of jobs first, their owners' usage last.
    expire_checks(session)
    previews.expire(session)
    age(session)
    _release_reservations(session, lease_seconds=lease_seconds)
    expire_leases(session)
    return True


def claim_sweep(session: Session, *, every_seconds: float, lease_seconds: float) -> bool:
    """Whether the caller is to sweep now: no process has begun a sweep for ``every_seconds``.

    After a time without any sweep nobody could renew a lease either, be it that the database was away or read-only: those
    whose work went on meanwhile get a whole term to say so.
    """
    now = clock.now_sql(session)
    is_due = or_(Sweep.began_at <= now - clock.seconds_sql(every_seconds), Sweep.began_at > now)
    silent_seconds = max(_SILENT_SHARE * lease_seconds, _SILENT_SWEEPS * every_seconds)
    was_silent = Sweep.began_at <= now - clock.seconds_sql(silent_seconds)
    last = session.execute(select(is_due.label("due"), was_silent.label("silent"))).one_or_none()
    if last is not None and not last.due:
        return False
    if last is not None and last.silent and not extend_leases(session, lease_seconds=lease_seconds):
        return False  # until the next one every lease has its whole term, and the time counts as one without a sweep
    begun = insert(Sweep).values(id=1, began_at=now)
    taken = begun.on_conflict_do_update(index_elements=[Sweep.id], set_={"began_at": now}, where=is_due)
    return session.scalar(taken.returning(Sweep.id)) is not None


def age(session: Session) -> int:
    """Moves jobs that waited longer than the queue policy says one class up. Returns their number."""
    seconds = queue_policy_of(session).promote_after_seconds
    query = select(Job).where(
        Job.status == Status.QUEUED,
        Job.queue_class == Job.priority,
        Job.priority > Priority.HIGH,
        Job.waiting_since < clock.now_sql(session) - clock.seconds_sql(seconds),
    )
    jobs = session.scalars(query.order_by(Job.waiting_since).limit(_MOST).with_for_update(skip_locked=True)).all()
    for job in jobs:
        transitions.promote(session, job)
    return len(jobs)


def preempt(session: Session, pool: str, *, lease_seconds: float) -> list[str]:
    """Requests a stop of low-priority jobs if a queued one of high priority has no devices. Returns their ids.

    The high-priority job gets a reservation of the host, so the devices that come free there are its own.
    """
    if not _may_preempt(session, pool):
        return []
    asked: list[str] = []
    decided = _decided(session, pool, lambda snapshot: preemptions(snapshot, _MAX_PREEMPTING), lease_seconds=lease_seconds)
    for reservation, victims in decided:
        reserve(session, [reservation], why="it is of high priority")
        asked += [victim.job_id for victim in victims if _preempt(session, victim.job_id, by=reservation.job.id)]
    return asked


def move_reservations(session: Session, pool: str, *, lease_seconds: float) -> None:
    """Moves reservations whose job would have its devices much earlier on another host."""
    better = _decided(session, pool, Snapshot.better_reservations, lease_seconds=lease_seconds)
    reserve(session, better, why="its devices are expected there much earlier")


def pools_with_urgent_jobs(session: Session) -> list[str]:
    """The pools in which jobs of high priority wait."""
    return list(session.scalars(select(Job.pool).where(Job.status == Status.QUEUED, Job.priority == Priority.HIGH).distinct()))


def pools_with_reservations(session: Session) -> list[str]:
    """The pools with reservations."""
    return list(session.scalars(select(Job.pool).where(Job.reserved_worker_id.is_not(None)).distinct()))


def wakes_due(session: Session, *, lease_seconds: float) -> dict[str, int]:
    """Number of useful wake-ups by pool: one for each free device that a queued job could take, one for checks and previews."""
    queued = queued_by_pool(session, most=_COUNTED)
    unchecked = {*unchecked_pools(session), *previews.unmade_pools(session)}
    if not queued and not unchecked:
        return {}
    devices = func.sum(func.jsonb_array_length(Worker.devices))
    serving = alive(session, lease_seconds=lease_seconds)
    query = select(Worker.pool, devices).where(serving, Worker.draining.is_(False)).group_by(Worker.pool)
    free = {pool: int(count) for pool, count in session.execute(query)}
    held = (
        select(Worker.pool, func.sum(func.cardinality(Job.devices)).label("count"))
        .join(Worker, Worker.id == Job.worker_id)
        .where(Job.status == Status.RUNNING, Worker.draining.is_(False))
        .group_by(Worker.pool)
    )
    for pool, count in session.execute(held):
        free[pool] = max(0, free.get(pool, 0) - count)
    due = {pool: min(queued.get(pool, 0), free.get(pool, 0)) + (pool in unchecked) for pool in {*queued, *unchecked}}
    return {pool: count for pool, count in due.items() if count}


def _decided(session: Session, pool: str, decide: Callable[[Snapshot], list[T]], *, lease_seconds: float) -> list[T]:
    """Decides on a snapshot taken under the pool's lock; claims have to wait for it only if there is something to do."""
    if not decide(take_snapshot(session, pool, lease_seconds=lease_seconds)):
        return []
    lock_pool(session, pool)
    return decide(take_snapshot(session, pool, lease_seconds=lease_seconds))


def _release_reservations(session: Session, *, lease_seconds: float) -> None:
    """Removes the reservations of hosts that are gone or drain; the next claim may make new ones."""
    oldest = clock.now_sql(session) - clock.seconds_sql(lease_seconds)
    gone = select(Worker.id).where(or_(Worker.stopped_at.is_not(None), Worker.heartbeat_at <= oldest, Worker.draining))
    reserved = select(Job.id).where(Job.reserved_worker_id.is_not(None), Job.reserved_worker_id.in_(gone))
    free = reserved.with_for_update(skip_locked=True, of=Job)
    session.execute(update(Job).where(Job.id.in_(free)).values(reserved_worker_id=None))


def _may_preempt(session: Session, pool: str) -> bool:
    """Whether a job of high priority waits, and a low one runs or some job has a reservation."""
    urgent = select(Job.id).where(Job.status == Status.QUEUED, Job.priority == Priority.HIGH, Job.pool == pool).limit(1)
    if session.scalar(urgent) is None:
        return False
    may_stop = or_(Job.stop_requested.is_not(None), and_(Job.priority == Priority.LOW, Job.queue_class == Priority.LOW))
    low = select(Job.id).where(Job.status == Status.RUNNING, Job.pool == pool, may_stop).limit(1)
    reserved = select(Job.id).where(Job.pool == pool, Job.reserved_worker_id.is_not(None)).limit(1)
    return session.scalar(low) is not None or session.scalar(reserved) is not None


def _preempt(session: Session, job_id: str, *, by: str) -> bool:
    query = select(Job).where(Job.id == job_id, Job.status == Status.RUNNING, Job.stop_requested.is_(None))
    job = session.scalar(query.with_for_update(skip_locked=True).execution_options(populate_existing=True))
    if job is None:
        return False
    message = f"job {by} of high priority needs its devices; it goes on later from a checkpoint"
    return transitions.request_stop(session, job, "preempt", message=message, by=by) is Outcome.APPLIED
