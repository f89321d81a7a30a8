"""What mends the queue on a timer: jobs of silent workers, classes of jobs that waited long, room for urgent jobs, wake-ups.

Every function is harmless to repeat, and leaves to another process what that one is doing.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import clock
from service.jobs import expire_leases, transitions
from service.lifecycle import Outcome, Priority, Status
from service.preflight import expire_checks, unchecked_pools
from service.queue_policy import rules_of
from service.scheduling.claim import keep_hosts, lock_pool
from service.scheduling.policy import Pool
from service.scheduling.preemption import rooms
from service.scheduling.snapshot import alive, look, queued_by_pool
from service.tables import Job, Sweep, Worker

T = TypeVar("T")
_SWEEP_LOCK = 7_445_002
_MOST = 1000
"""Rows that one sweep changes of a kind; the next one goes on."""
_MOST_ROOM = 20
"""Jobs of high priority that room is made for at once."""
_COUNTED = 64
"""Queued jobs of a pool that a sweep counts: no more wake-ups than that are sent."""


def sweep(session: Session, *, lease_seconds: float) -> bool:
    """Takes jobs and checks from silent workers, and raises those that waited long. False: another process sweeps just now."""
    if not session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))):
        return False
    # In the order of locks that a claim takes: rows of jobs first, what their owners used last.
    expire_checks(session)
    promote(session)
    _let_hosts_go(session, lease_seconds=lease_seconds)
    expire_leases(session)
    return True


def take_turn(session: Session, *, every_seconds: float) -> bool:
    """Whether nobody has begun a sweep for so long: then the caller does, and the others leave it alone."""
    now = clock.now_sql(session)
    is_due = or_(Sweep.began_at <= now - func.make_interval(0, 0, 0, 0, 0, 0, every_seconds), Sweep.began_at > now)
    if session.scalar(select(Sweep.id).where(~is_due)) is not None:
        return False
    begun = insert(Sweep).values(id=1, began_at=now)
    taken = begun.on_conflict_do_update(index_elements=[Sweep.id], set_={"began_at": now}, where=is_due)
    return session.scalar(taken.returning(Sweep.id)) is not None


def promote(session: Session) -> int:
    """A job that waited longer than the rules say rises one class. Answers how many did."""
    seconds = rules_of(session).promote_after_seconds
    query = select(Job).where(
        Job.status == Status.QUEUED,
        Job.queue_class == Job.priority,
        Job.priority > Priority.HIGH,
        Job.waiting_since < clock.now_sql(session) - func.make_interval(0, 0, 0, 0, 0, 0, seconds),
    )
    jobs = session.scalars(query.order_by(Job.waiting_since).limit(_MOST).with_for_update(skip_locked=True)).all()
    for job in jobs:
        transitions.promote(session, job)
    return len(jobs)


def make_room(session: Session, pool: str, *, lease_seconds: float) -> list[str]:
    """Asks jobs of low priority to stop where a queued one of high priority has no devices. Answers whom.

    The host is kept for the high one: what comes free there is its.
    """
    if not _may_have_room(session, pool):
        return []
    asked: list[str] = []
    for kept, victims in _decided(session, pool, lambda picture: rooms(picture, _MOST_ROOM), lease_seconds=lease_seconds):
        keep_hosts(session, [kept], why="it is of high priority")
        asked += [victim.job_id for victim in victims if _preempt(session, victim.job_id, by=kept.job.id)]
    return asked


def move_kept_hosts(session: Session, pool: str, *, lease_seconds: float) -> None:
    """Keeps another host for a job that would have its devices much earlier there than on that which is kept for it."""
    better = _decided(session, pool, Pool.better_hosts, lease_seconds=lease_seconds)
    keep_hosts(session, better, why="its devices are expected there much earlier")


def pools_with_urgent_jobs(session: Session) -> list[str]:
    """Where jobs of high priority wait."""
    return list(session.scalars(select(Job.pool).where(Job.status == Status.QUEUED, Job.priority == Priority.HIGH).distinct()))


def pools_with_kept_hosts(session: Session) -> list[str]:
    """Where hosts are kept free."""
    return list(session.scalars(select(Job.pool).where(Job.reserved_worker_id.is_not(None)).distinct()))


def wakes_due(session: Session, *, lease_seconds: float) -> dict[str, int]:
    """How many wake-ups are of use, by pool: one for each device that is free and could be wanted, one for checks."""
    queued = queued_by_pool(session, most=_COUNTED)
    unchecked = unchecked_pools(session)
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


def _decided(session: Session, pool: str, decide: Callable[[Pool], list[T]], *, lease_seconds: float) -> list[T]:
    """What is to be done, decided with the pool's queue to itself; claims wait for that only where there is something to do."""
    if not decide(look(session, pool, lease_seconds=lease_seconds)):
        return []
    lock_pool(session, pool)
    return decide(look(session, pool, lease_seconds=lease_seconds))


def _let_hosts_go(session: Session, *, lease_seconds: float) -> None:
    """A host that is gone or drains is kept for nobody: another may be, at the next claim."""
    oldest = clock.now_sql(session) - func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    gone = select(Worker.id).where(or_(Worker.stopped_at.is_not(None), Worker.heartbeat_at <= oldest, Worker.draining))
    kept = select(Job.id).where(Job.reserved_worker_id.is_not(None), Job.reserved_worker_id.in_(gone))
    free = kept.with_for_update(skip_locked=True, of=Job)
    session.execute(update(Job).where(Job.id.in_(free)).values(reserved_worker_id=None))


def _may_have_room(session: Session, pool: str) -> bool:
    """Whether a job of high priority waits, and others could make room: low ones that run, or those that hosts are kept for."""
    urgent = select(Job.id).where(Job.status == Status.QUEUED, Job.priority == Priority.HIGH, Job.pool == pool).limit(1)
    if session.scalar(urgent) is None:
        return False
    may_stop = or_(Job.stop_requested.is_not(None), and_(Job.priority == Priority.LOW, Job.queue_class == Priority.LOW))
    low = select(Job.id).where(Job.status == Status.RUNNING, Job.pool == pool, may_stop).limit(1)
    kept = select(Job.id).where(Job.pool == pool, Job.reserved_worker_id.is_not(None)).limit(1)
    return session.scalar(low) is not None or session.scalar(kept) is not None


def _preempt(session: Session, job_id: str, *, by: str) -> bool:
    query = select(Job).where(Job.id == job_id, Job.status == Status.RUNNING, Job.stop_requested.is_(None))
    job = session.scalar(query.with_for_update(skip_locked=True).execution_options(populate_existing=True))
    if job is None:
        return False
    message = f"job {by} of high priority needs its devices; it goes on later from a checkpoint"
    return transitions.request_stop(session, job, "preempt", message=message, by=by) is Outcome.APPLIED
