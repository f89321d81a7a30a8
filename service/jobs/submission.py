"""New jobs: the owner's limit, the idempotency key, and everything that a spec names, locked until the job is stored."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.capacity import whole_gib
from service.clock import now
from service.errors import FieldError, IdempotencyMismatch, InvalidSpec, QueueLimitReached, RequestInFlight
from service.ids import new_id
from service.jobs import transitions
from service.jobs.dependencies import by_needs, needed_jobs, teacher_models, teacher_sources
from service.lifecycle import UNSTARTED, Priority, Status
from service.spec import JobSpec
from service.spec.source import split_source
from service.spec.warning_message import WarningMessage
from service.tables import Dataset, Job, JobDependency, JobLabel, JobTeacher, User


def submit(
    session: Session,
    *,
    owner_id: str,
    spec: JobSpec,
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    preflight: bool = False,
    warnings: Sequence[WarningMessage] = (),
) -> tuple[Job, bool]:
    """Stores a job, and returns it with True if it is new, with False if the idempotency key named an earlier one.

    With ``preflight`` it is checked before it waits for devices.

    Raises:
        QueueLimitReached: the owner has as many unstarted jobs as the limit permits.
        RequestInFlight: another request with the same key is being served.
        IdempotencyMismatch: the key was used with another body.
        InvalidSpec: the spec names a dataset or a model that is gone, or a job that can no longer succeed.
    """
    if idempotency_key is not None:
        earlier = find_repeat(session, owner_id=owner_id, idempotency_key=idempotency_key, request_sha256=request_sha256)
        if earlier is not None:
            return earlier, False
    held = _hold(session, spec)
    refuse_over_limit(session, owner_id)  # second, as a resume locks its job and then the owner
    at = now(session)
    if preflight:
        status, reason = Status.CHECKING, "waits for its check: one step on a few rows"
    else:
        status, reason = by_needs(held.needs)
    resources = spec.resources
    job = Job(
        id=new_id("job"),
        owner_id=owner_id,
        name=spec.name,
        labels=spec.labels,
        spec=spec.model_dump(mode="json"),
        warnings=[warning.model_dump() for warning in warnings],
        status=status,
        status_reason=reason,
        version=0,
        last_event_seq=0,
        pool=resources.pool,
        priority=Priority.named(spec.priority),
        queue_class=Priority.named(spec.priority),
        gpus=resources.gpus,
        cpu_slots=resources.cpu_slots,
        min_gpu_memory_gib=resources.min_gpu_memory_gib,
        resource_class=resource_class_of(resources.gpus, resources.cpu_slots, resources.min_gpu_memory_gib),
        max_runtime_seconds=resources.max_runtime_seconds,
        attempt=0,
        crashes=0,
        max_attempts=spec.max_attempts,
        created_at=at,
        queued_at=at if status is Status.QUEUED else None,
        waiting_since=at if status is Status.QUEUED else None,
        run_seconds=0.0,
        gpu_seconds=0.0,
        dataset_id=held.dataset_id,
        transfer_id=held.transfer_id,
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
    )
    session.add(job)
    session.flush()
    session.add_all(JobLabel(job_id=job.id, key=key, value=value) for key, value in spec.labels.items())
    session.add_all(JobDependency(job_id=job.id, needs_job_id=needed.id) for needed in held.needs)
    session.add_all(JobTeacher(job_id=job.id, model_id=model_id) for model_id in held.model_ids)
    transitions.record_event(session, job, f"job.{job.status}", job.status_reason)
    transitions.record_warnings(session, job, [warning.model_dump() for warning in warnings])
    return job, True


@dataclass(frozen=True)
class _Held:
    """What a spec names in the database, locked: none of it is deleted, and no needed job ends, before the transaction does."""

    needs: list[Job]
    dataset_id: str | None
    transfer_id: str | None
    model_ids: list[str]
    """Of the teachers that are stored models."""


def _hold(session: Session, spec: JobSpec) -> _Held:
    """Locks what a spec names. Raises InvalidSpec with every fault if some of it is gone since the spec was checked."""
    needs, faults = needed_jobs(session, spec, lock=True)
    held: dict[str, str] = {}
    # In the order of their ids, so that two submissions and a deletion cannot wait for each other in a circle.
    for name, pointer in sorted(_datasets(spec)):
        if session.scalar(select(Dataset.id).where(Dataset.id == name).with_for_update(read=True)) is None:
            faults.append(FieldError(pointer=pointer, message=f"dataset {name!r} was deleted a moment ago"))
        held[pointer] = name
    model_ids = [model.id for model in teacher_models(session, spec, lock=True)]
    for pointer, source in sorted(teacher_sources(spec).items(), key=lambda each: each[1]):
        if source.kind == "model" and source.name not in model_ids:
            faults.append(FieldError(pointer=pointer, message=f"model {source.name!r} was deleted a moment ago"))
    if faults:
        raise InvalidSpec(faults)
    return _Held(needs, held.get("/dataset/source"), held.get("/dataset/transfer"), model_ids)


def _datasets(spec: JobSpec) -> list[tuple[str, str]]:
    """The ids of the uploaded datasets that a spec names, each with its pointer."""
    named = [(spec.dataset.source, "/dataset/source"), (spec.dataset.transfer or "", "/dataset/transfer")]
    return [(split_source(source).name, pointer) for source, pointer in named if split_source(source).kind == "dataset"]


def refuse_over_limit(session: Session, owner_id: str) -> None:
    """Raises QueueLimitReached if the owner has as many unstarted jobs as permitted; else none is added until the commit."""
    limit = session.scalar(select(User.max_queued_jobs).where(User.id == owner_id))
    if limit is None:
        return
    session.execute(select(User.id).where(User.id == owner_id).with_for_update(key_share=True))
    waiting = select(Job.id).where(Job.owner_id == owner_id, Job.status.in_(UNSTARTED)).limit(limit).subquery()
    if (session.scalar(select(func.count()).select_from(waiting)) or 0) >= limit:
        remedy = "try again once some have started, cancel some, or ask" if limit else "ask"
        raise QueueLimitReached(
            f"{limit or 'none'} of your jobs {'wait already' if limit else 'may wait'}, which is your limit; "
            f"{remedy} an admin for a higher max_queued_jobs"
        )


def find_repeat(session: Session, *, owner_id: str, idempotency_key: str, request_sha256: str | None) -> Job | None:
    """Finds the job that this owner's idempotency key named before. Holds the key until the transaction ends.

    Raises:
        RequestInFlight: another transaction holds the key.
        IdempotencyMismatch: the key was used with another body.
    """
    digest = hashlib.sha256(f"{owner_id}\0{idempotency_key}".encode()).digest()
    lock = int.from_bytes(digest[:8], "big", signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise RequestInFlight("a request with this Idempotency-Key is being served; ask again in a moment", retry_after_seconds=1)
    job = session.scalar(select(Job).where(Job.owner_id == owner_id, Job.idempotency_key == idempotency_key))
    if job is not None and job.request_sha256 != request_sha256:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used with another body; send the same body, or a new key", param="Idempotency-Key"
        )
    return job


def resource_class_of(gpus: int, cpu_slots: int, min_gpu_memory_gib: float | None) -> str:
    """The devices that a job holds of a host, as one word: equal for equal needs."""
    return f"gpu:{gpus}:{whole_gib(min_gpu_memory_gib or 0.0)}" if gpus else f"cpu:{cpu_slots}"
