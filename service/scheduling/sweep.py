"""What mends the queue on a timer: jobs of silent workers, classes of jobs that waited long, room for urgent jobs, wake-ups.

Every function is harmless to repeat, and leaves to another process what that one is doing.
"""

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service import clock
from service.jobs import expire_leases, record_event
from service.lifecycle import Status
from service.preflight import expire_checks, unchecked_by_pool
from service.rules import rules_of
from service.scheduling.claim import keep_hosts, lock_pool
from service.scheduling.picture import alive, look, queued_by_pool, waiting_of
from service.scheduling.policy import Reservation
from service.tables import Job, Worker

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
    expire_leases(session)
    expire_checks(session)
    promote(session)
    _let_hosts_go(session, lease_seconds=lease_seconds)
    return True


def promote(session: Session) -> int:
    """A job that waited longer than the rules say rises one class. Answers how many did."""
    seconds = rules_of(session).promote_after_seconds
    query = select(Job).where(
        Job.status == Status.QUEUED,
        Job.queue_class == Job.priority,
        Job.priority > 0,
        Job.waiting_since < clock.now_sql(session) - func.make_interval(0, 0, 0, 0, 0, 0, seconds),
    )
    jobs = session.scalars(query.order_by(Job.waiting_since).limit(_MOST).with_for_update(skip_locked=True)).all()
    for job in jobs:
        job.queue_class = job.priority - 1
        record_event(session, job, "job.promoted", "it has waited long, and waits one class higher from now on")
    return len(jobs)


def make_room(session: Session, pool: str, *, lease_seconds: float) -> list[str]:
    """Asks jobs of low priority to stop where a queued one of high priority has no devices. Answers whom.

    The host is kept for the high one: what comes free there is its.
    """
    query = select(Job).where(Job.status == Status.QUEUED, Job.priority == 0, Job.pool == pool)
    urgent = session.scalars(query.order_by(Job.queued_at, Job.id).limit(_MOST_ROOM)).all()
    if not urgent:
        return []
    lock_pool(session, pool)
    ahead = look(session, pool, lease_seconds=lease_seconds).thought_ahead()
    # What fits somewhere starts there, and takes the place of those that come after it.
    for host in ahead.find_hosts():
        while (placement := ahead.next_for(host)) is not None:
            ahead.start(placement)
    asked = []
    for job in urgent:
        waiting = waiting_of(job)
        lane = ahead.lanes.get(waiting.lane)
        if lane is None or waiting.id not in {each.id for each in lane.window()} or ahead.shares[job.owner_id].is_full:
            continue
        room = ahead.room_for(waiting)
        if room is None:
            continue
        host, victims = room
        reservation = Reservation(waiting, host.worker_id)
        ahead.reservations = [kept for kept in ahead.reservations if kept.job.id != job.id] + [reservation]
        if job.reserved_worker_id != host.worker_id:
            keep_hosts(session, [reservation], why="it is of high priority")
        for victim in victims:
            if _preempt(session, victim.job_id, by=job):
                asked.append(victim.job_id)
        for victim in victims:
            host.release(victim.job_id)
    return asked


def pools_with_urgent_jobs(session: Session) -> list[str]:
    """Where jobs of high priority wait."""
    return list(session.scalars(select(Job.pool).where(Job.status == Status.QUEUED, Job.priority == 0).distinct()))


def wakes_due(session: Session, *, lease_seconds: float) -> dict[str, int]:
    """How many wake-ups are of use, by pool: one for each device that is free and could be wanted, one for checks."""
    queued = queued_by_pool(session, most=_COUNTED)
    unchecked = unchecked_by_pool(session)
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
    due = {pool: min(queued.get(pool, 0), free.get(pool, 0)) + min(1, unchecked.get(pool, 0)) for pool in {*queued, *unchecked}}
    return {pool: count for pool, count in due.items() if count}


def _let_hosts_go(session: Session, *, lease_seconds: float) -> None:
    """A host that is gone or drains is kept for nobody: another may be, at the next claim."""
    oldest = clock.now_sql(session) - func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    gone = select(Worker.id).where(or_(Worker.stopped_at.is_not(None), Worker.heartbeat_at <= oldest, Worker.draining))
    kept = Job.reserved_worker_id.is_not(None)
    session.execute(update(Job).where(kept, Job.reserved_worker_id.in_(gone)).values(reserved_worker_id=None))


def _preempt(session: Session, job_id: str, *, by: Job) -> bool:
    query = select(Job).where(Job.id == job_id, Job.status == Status.RUNNING, Job.stop_requested.is_(None))
    job = session.scalar(query.with_for_update(skip_locked=True).execution_options(populate_existing=True))
    if job is None:
        return False
    job.stop_requested = "preempt"
    message = f"job {by.id} of high priority needs its devices; it goes on later from a checkpoint"
    record_event(session, job, "job.stop_requested", message, {"stop": "preempt", "by": by.id})
    return True
