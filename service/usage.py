"""The usage of each user: the decayed amount that orders the queue, and the account by the hour.

Amounts are in GPU-seconds; a CPU slot counts a fraction of a GPU. An amount is stored with the time it refers to:
later it is ``amount · 2^(-age / half-life)``, so users compare correctly however old their rows are.

A start is charged some running time in advance, so that many jobs posted together cannot all start before the first of them is
accounted for; heartbeats charge the time beyond it, and the end gives back the time that was not used.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Double, case, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.queue_policy import queue_policy_of
from service.tables import Job, Usage, UsageHour, User

_SETTLE_SECONDS = 60.0
"""Least time between two writes of a running job's usage: one at every heartbeat would be many times the writes."""

_NOTHING, _GONE = 1e-6, 100.0
"""Fewer GPU-seconds, or those of more half-lives ago, count as none."""


@dataclass(frozen=True)
class Consumption:
    """The account of one user."""

    user: str
    weight: float
    gpu_seconds: float
    cpu_slot_seconds: float
    jobs: int
    """Jobs that started for the first time."""
    decayed: float
    """Decayed GPU-seconds: what the fair share goes by now."""
    share: float
    """This user's part of the usage of all, in GPU equivalents, 0 to 1."""
    fair: float
    """This user's part of all weights, 0 to 1: the share that would be used if everybody always had jobs."""


def charge_start(session: Session, job: Job, *, at: datetime) -> None:
    """Charges the owner of an attempt that begins with the entry charge."""
    queue_policy = queue_policy_of(session)
    job.charged_seconds, job.accounted_seconds = queue_policy.entry_seconds, 0.0
    _charge(session, job.owner_id, queue_policy.entry_charge(job.gpus, job.cpu_slots), at=at)
    _account(session, job, 0.0, at=at, jobs=1 if job.attempt == 1 else 0)


def is_due(started_at: datetime, accounted_seconds: float, *, at: datetime) -> bool:
    """Whether a running attempt's usage is due to be settled."""
    return (at - started_at).total_seconds() >= accounted_seconds + _SETTLE_SECONDS


def settle(session: Session, job: Job, *, at: datetime, ended: bool) -> None:
    """Charges an attempt's running time up to ``at``; once it has ended, returns the unused part of the entry charge."""
    if job.started_at is None:
        return
    elapsed = max(0.0, (at - job.started_at).total_seconds())
    queue_policy = queue_policy_of(session)
    rate = queue_policy.rate(job.gpus, job.cpu_slots)
    if elapsed > job.charged_seconds:
        _charge(session, job.owner_id, (elapsed - job.charged_seconds) * rate, at=at)
        job.charged_seconds = elapsed
    elif ended:
        back = queue_policy.decayed((job.charged_seconds - elapsed) * rate, elapsed)  # it was charged at the start
        _charge(session, job.owner_id, -back, at=at)
        job.charged_seconds = elapsed
    _account(session, job, elapsed - job.accounted_seconds, at=at)
    job.accounted_seconds = max(elapsed, job.accounted_seconds)


def decayed_sql(session: Session, at: Any) -> Any:
    """A user's decayed amount at a time, as an SQL expression over an outer join with :class:`Usage`."""
    return func.coalesce(_decayed(session, at), 0.0)


def consumption(session: Session, *, since: datetime | None, at: datetime) -> list[Consumption]:
    """The account of every user, most usage first; ``since`` is rounded down to a whole hour."""
    totals = select(
        UsageHour.user_id,
        func.sum(UsageHour.gpu_seconds).label("gpu"),
        func.sum(UsageHour.cpu_slot_seconds).label("cpu"),
        func.sum(UsageHour.jobs).label("jobs"),
    ).group_by(UsageHour.user_id)
    if since is not None:
        totals = totals.where(UsageHour.hour >= hour_of(since))
    used = totals.subquery()
    rows = session.execute(
        select(User.name, User.share_weight, used.c.gpu, used.c.cpu, used.c.jobs, decayed_sql(session, literal(at)))
        .outerjoin(used, used.c.user_id == User.id)
        .outerjoin(Usage, Usage.user_id == User.id)
    ).all()
    queue_policy = queue_policy_of(session)
    weighed = {name: queue_policy.gpu_equivalent(gpu or 0.0, cpu or 0.0) for name, _, gpu, cpu, _, _ in rows}
    total, weights = sum(weighed.values()), sum(weight for _, weight, *_ in rows)
    lines = [
        Consumption(
            user=name,
            weight=weight,
            gpu_seconds=gpu or 0.0,
            cpu_slot_seconds=cpu or 0.0,
            jobs=int(jobs or 0),
            decayed=decayed,
            share=weighed[name] / total if total else 0.0,
            fair=weight / weights,
        )
        for name, weight, gpu, cpu, jobs, decayed in rows
    ]
    return sorted(lines, key=lambda line: (-line.share, line.user))


def _charge(session: Session, user_id: str, amount: float, *, at: datetime) -> None:
    statement = insert(Usage).values(user_id=user_id, amount=max(0.0, amount), as_of=at)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Usage.user_id],
            set_={
                "amount": func.greatest(0.0, _decayed(session, statement.excluded.as_of) + amount),
                "as_of": func.greatest(Usage.as_of, statement.excluded.as_of),
            },
        )
    )


def _decayed(session: Session, at: Any) -> Any:
    """The stored amount, decayed to a time, in SQL; not decayed for a time before it, as that of a clock that is behind."""
    half_lives = func.greatest(0.0, func.extract("epoch", at - Usage.as_of)) / queue_policy_of(session).usage_half_life_seconds
    left = Usage.amount * func.power(cast(literal(2.0), Double), -half_lives)
    # PostgreSQL raises an error where a result underflows.
    return case((or_(Usage.amount < _NOTHING, half_lives > _GONE), 0.0), else_=left)


def _account(session: Session, job: Job, seconds: float, *, at: datetime, jobs: int = 0) -> None:
    if seconds <= 0 and not jobs:
        return
    statement = insert(UsageHour).values(
        user_id=job.owner_id,
        hour=hour_of(at),
        gpu_seconds=seconds * job.gpus,
        cpu_slot_seconds=0.0 if job.gpus else seconds * job.cpu_slots,
        jobs=jobs,
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[UsageHour.user_id, UsageHour.hour],
            set_={
                name: getattr(UsageHour, name) + statement.excluded[name] for name in ("gpu_seconds", "cpu_slot_seconds", "jobs")
            },
        )
    )


def hour_of(time: datetime) -> datetime:
    """The beginning of the hour of a time, in UTC."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
