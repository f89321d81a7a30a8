"""The check of a job before it waits for devices: the claim of a check, its lease, and its result on the job's row.

A check belongs to a worker by a lease and a fence of its own (``checks``). A job that passes is queued with its estimate; one
that cannot train fails here. A check without a result, by no fault of the job, is repeated, and after ``MAX_CHECKS`` the job is
queued unchecked: a check saves time, it does not decide what may run.
"""

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from service import usage
from service.capacity import capacity, whole_gib
from service.clock import now, now_sql, seconds_sql
from service.database import loose_index_scan
from service.errors import JobFailure
from service.ids import new_id
from service.jobs import MAX_LOSSES, enter_queue, resource_class_of, transitions
from service.lifecycle import Outcome, Status
from service.queue_policy import queue_policy_of
from service.tables import Job, Preview, Usage, User

MAX_CHECKS = 3
_COUNTED = 100
_UNCHECKED = "status = 'checking' AND lease_expires_at IS NULL"
_HEADS = text(f"""
{loose_index_scan("owner_id", f"{_UNCHECKED} AND pool = :pool")}
SELECT head.id, head.owner_id, head.priority, ahead.gpus, ahead.cpu_slots FROM scan
CROSS JOIN LATERAL (
    SELECT id, owner_id, priority FROM jobs WHERE {_UNCHECKED} AND pool = :pool
    AND owner_id = scan.owner_id ORDER BY priority, id LIMIT 1
) AS head
CROSS JOIN LATERAL (
    SELECT coalesce(sum(gpus), 0) AS gpus, coalesce(sum(cpu_slots) FILTER (WHERE gpus = 0), 0) AS cpu_slots FROM (
        (SELECT gpus, cpu_slots FROM jobs WHERE status = 'queued' AND owner_id = scan.owner_id LIMIT :counted)
        UNION ALL
        (SELECT gpus, cpu_slots FROM jobs WHERE status = 'checking' AND lease_expires_at IS NOT NULL
         AND owner_id = scan.owner_id LIMIT :counted)
    ) AS counted
) AS ahead
""")  # noqa: S608 - no value is put into the text
"""The first unchecked job of each user, with the devices of the user's jobs that are queued or being checked."""
_UNCHECKED_POOLS = text(f"{loose_index_scan('pool', _UNCHECKED)} SELECT pool FROM scan")  # noqa: S608 - no value is put into the text


@dataclass(frozen=True)
class CheckFence:
    """One check of one job: what a worker names with every write, so that one whose lease has ended writes nothing."""

    job_id: str
    check: int


@dataclass(frozen=True)
class Check:
    """A check that is now this worker's, until its lease ends."""

    fence: CheckFence
    job: Job


def claim_check(session: Session, worker_id: str, pool: str, *, lease_seconds: float) -> Check | None:
    """Claims the next check in the order of the queue that follows, so that a user's hundred jobs do not delay another's one.

    The charge for the user's jobs that are queued or being checked counts as used already. None: there is nothing to check.
    """
    queue_policy = queue_policy_of(session)
    values = {"pool": pool, "counted": _COUNTED}
    heads = session.execute(_HEADS, values).all()
    used = select(User.id, User.share_weight, usage.decayed_sql(session, now(session))).outerjoin(Usage, Usage.user_id == User.id)
    owners = {
        id_: (weight, amount) for id_, weight, amount in session.execute(used.where(User.id.in_({h.owner_id for h in heads})))
    }

    def sort_key(head: Any) -> tuple[int, float, str]:
        weight, amount = owners[head.owner_id]
        ahead = queue_policy.gpu_equivalent(float(head.gpus), float(head.cpu_slots))
        return head.priority, (amount + queue_policy.entry_seconds * ahead) / weight, head.id

    for head in sorted(heads, key=sort_key):
        query = select(Job).where(Job.id == head.id, Job.status == Status.CHECKING, Job.lease_expires_at.is_(None))
        job = session.scalar(query.with_for_update(skip_locked=True).execution_options(populate_existing=True))
        if job is None:
            continue
        transitions.start_check(session, job, worker_id=worker_id, lease_seconds=lease_seconds)
        return Check(CheckFence(job.id, job.checks), job)
    return None


def renew_check(session: Session, fence: CheckFence, *, lease_seconds: float) -> bool:
    """Extends the lease; False: the check is no longer this worker's, for instance because the job was cancelled."""
    row = session.execute(
        update(Job).where(*_holds(fence)).values(lease_expires_at=now_sql(session) + seconds_sql(lease_seconds)).returning(Job.id)
    ).one_or_none()
    return row is not None


def pass_check(
    session: Session,
    fence: CheckFence,
    estimate: dict[str, Any],
    *,
    preview: dict[str, Any] | None = None,
    memory_seconds: float,
) -> Outcome:
    """checking → queued or waiting, with the estimate; or failed, if the job would fit on no host of its pool.

    ``preview`` is what its networks read, which is kept for a day.
    """
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    if preview is not None:
        made = Preview(id=new_id("preview"), owner_id=job.owner_id, pool=job.pool, spec=job.spec, num_samples=2, result=preview)
        made.finished_at = now(session)
        session.add(made)
        estimate = {**estimate, "preview_id": made.id}
    job.estimate = estimate
    found = [warning for warning in estimate.get("warnings", []) if warning not in job.warnings]
    job.warnings = [*job.warnings, *found]
    transitions.record_warnings(session, job, found)
    if estimate["memory_gib"] is not None and (refusal := _fit_memory(session, job, estimate, memory_seconds=memory_seconds)):
        return transitions.fail(session, job, refusal)
    return _on(session, job)


def refuse_check(session: Session, fence: CheckFence, failure: JobFailure) -> Outcome:
    """checking → failed: the job cannot train as it is."""
    job = _fenced(session, fence)
    return Outcome.LEASE_LOST if job is None else transitions.fail(session, job, failure)


def give_up_check(session: Session, fence: CheckFence, why: str) -> Outcome:
    """Ends a check that has no result, by no fault of the job: another one follows, or the job is queued unchecked."""
    job = _fenced(session, fence)
    if job is None:
        return Outcome.LEASE_LOST
    job.failed_checks += 1
    return _repeat(session, job, why, is_last=job.failed_checks >= MAX_CHECKS)


def give_back_check(session: Session, fence: CheckFence, why: str) -> Outcome:
    """Ends a check that its worker could not make, as it drains or the check's process was told to end: another one follows."""
    job = _fenced(session, fence)
    return Outcome.LEASE_LOST if job is None else _lose(session, job, why)


def expire_checks(session: Session) -> int:
    """Ends the checks whose lease has expired; returns their number."""
    query = select(Job).where(Job.status == Status.CHECKING, Job.lease_expires_at < now_sql(session))
    lost = session.scalars(query.order_by(Job.id).limit(1000).with_for_update(skip_locked=True)).all()
    for job in lost:
        _lose(session, job, "the worker that checked it fell silent")
    return len(lost)


def unchecked_pools(session: Session) -> set[str]:
    """Reads the pools in which jobs wait for a check."""
    return set(session.scalars(_UNCHECKED_POOLS))


def _holds(fence: CheckFence) -> tuple[Any, ...]:
    is_taken = Job.lease_expires_at.is_not(None)
    return Job.id == fence.job_id, Job.checks == fence.check, Job.status == Status.CHECKING, is_taken


def _fenced(session: Session, fence: CheckFence) -> Job | None:
    return session.scalar(select(Job).where(*_holds(fence)).with_for_update().execution_options(populate_existing=True))


def _lose(session: Session, job: Job, why: str) -> Outcome:
    job.losses += 1
    return _repeat(session, job, why, is_last=job.losses >= MAX_LOSSES)


def _repeat(session: Session, job: Job, why: str, *, is_last: bool) -> Outcome:
    job.progress = None
    if is_last:
        transitions.record_event(session, job, "job.unchecked", f"{why}; it goes on unchecked")
        return _on(session, job)
    return transitions.lose_check(session, job, why)


def _on(session: Session, job: Job) -> Outcome:
    job.progress, job.losses = None, 0
    return enter_queue(session, job, {"estimate": job.estimate} if job.estimate else None)


def _fit_memory(session: Session, job: Job, estimate: dict[str, Any], *, memory_seconds: float) -> JobFailure | None:
    """Sets the memory of the job's GPUs, if its spec does not; returns an error if no host of its pool has so much."""
    memory_gib = estimate["memory_gib"]
    with session.no_autoflush:
        had = capacity(session, job.pool, memory_seconds=memory_seconds)
    if not job.gpus:
        host = had.largest_gib("cpu", count=job.cpu_slots)
        if host is not None and memory_gib * job.cpu_slots > host:
            return _too_large(job, estimate, has=host)
        return None
    largest = had.largest_gib("cuda", count=job.gpus)
    if largest is not None and memory_gib > largest:
        return _too_large(job, estimate, has=largest)
    asked = job.min_gpu_memory_gib
    if asked is not None:
        if memory_gib > asked:
            warning = f"It needs about {memory_gib:.1f} GiB on each GPU, and asks for {asked:g}: on one of those it may run out."
            job.estimate = {**estimate, "notes": [*estimate["notes"], f"{warning} Raise resources.min_gpu_memory_gib."]}
            transitions.record_event(session, job, "job.warning", warning, {"estimated_gib": memory_gib, "asked_gib": asked})
    elif largest != math.inf:
        job.min_gpu_memory_gib = float(whole_gib(memory_gib))
        job.resource_class = resource_class_of(job.gpus, job.cpu_slots, job.min_gpu_memory_gib)
    return None


_REMEDIES = {
    "weights": "Set student.weights to bf16. ",
    "teachers": "Hold given teachers in a smaller dtype, such as int8. ",
    "optimizer": "Take the optimizer adafactor or adamw-8bit, or train an adapter alone. ",
    "gradients": "Train an adapter alone. ",
    "activations": "Set micro_batch. ",
}
"""By the part of a training's memory that is the largest."""


def _too_large(job: Job, estimate: dict[str, Any], *, has: float) -> JobFailure:
    """The error of a job that no host of its pool can hold.

    ``has`` is the memory of each GPU of the largest host, or of the host itself if the job trains on CPUs.
    """
    memory_gib, by_training = estimate["memory_gib"], estimate["memory_by_training_gib"]
    role = max(by_training, key=by_training.__getitem__)
    parts = estimate.get("memory_parts_gib", {}).get(role, {})
    told = "".join(f"{', ' if index else ' ('}{part} {size:.1f}" for index, (part, size) in enumerate(_largest_first(parts)))
    first = next((_REMEDIES[part] for part, _ in _largest_first(parts) if part in _REMEDIES), "")
    if not job.gpus:
        where = f" in each of {job.cpu_slots} processes" if job.cpu_slots > 1 else ""
        most, remedy = f"the largest host of pool {job.pool!r} has {has:.3g} GiB", "or ask for gpus"
    elif job.gpus == 1:
        where, most = " on its GPU", f"the largest of pool {job.pool!r} has {has:g} GiB"
        remedy = "or ask for more gpus, which share each batch"
    else:
        where = f" on each of {job.gpus} GPUs"
        most = f"of pool {job.pool!r} the best host with so many has {has:g} GiB on each"
        remedy = "or ask for another number of gpus, which share each batch"
    return JobFailure(
        code="preflight_failed",
        message=f"training the {role} needs about {memory_gib:.1f} GiB{where}{told}{')' if told else ''}, and {most}",
        hint=f"{first}Lower batch_size and raise gradient_accumulation by the same factor, take a smaller network, {remedy}.",
        details={"pointer": f"{_place(job, role)}/batch_size", "estimated_gib": memory_gib, "largest_gib": has},
    )


def _largest_first(parts: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(parts.items(), key=lambda part: -part[1])


def _place(job: Job, role: str) -> str:
    """The part of the spec that a role's training follows, as a JSON pointer."""
    kind, _, number = role.partition("-")
    if kind != "teacher":
        return "/training"
    return f"/teacher/{int(number) - 1}/training" if number else "/teacher/training"
