"""New jobs: the owner's limit, the idempotency key, and everything that a spec names, locked until the job is stored."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.types import Boolean, DateTime, Text

from service.capacity import whole_gib
from service.clock import own_time
from service.errors import FieldError, IdempotencyMismatch, InvalidSpec, QueueLimitReached, RequestInFlight
from service.ids import new_id
from service.jobs.dependencies import by_needs, needed_jobs, used_models
from service.lifecycle import UNSTARTED, Priority, Status
from service.spec import JobSpec
from service.spec.data import DatasetInfo
from service.spec.source import split_source
from service.spec.warning_message import WarningMessage
from service.tables import Dataset, Job, Model


@dataclass(frozen=True)
class Named:
    """What the database has of the things that a spec names."""

    needs: list[Job]
    """The jobs that must succeed first, in the order of their ids."""
    need_faults: list[FieldError]
    """Why it cannot wait for some jobs that it names."""
    datasets: dict[str, DatasetInfo]
    """The uploaded datasets, by source."""
    models: list[Model]
    """The stored models that it uses."""


def find_named(session: Session, spec: JobSpec, *, lock: bool = False) -> Named:
    """Looks up what a spec names.

    With ``lock`` none of it is deleted, and no needed job ends, before the transaction does. Each kind is locked in the order of
    its ids, so that two submissions and a deletion cannot wait for each other in a circle.
    """
    needs, need_faults = needed_jobs(session, spec, lock=lock)
    datasets = find_datasets(session, [spec], lock=lock)
    return Named(needs, need_faults, datasets, used_models(session, spec, lock=lock))


def find_datasets(session: Session, specs: Collection[JobSpec], *, lock: bool = False) -> dict[str, DatasetInfo]:
    """Reads what is known of the uploaded datasets of these specs, by source."""
    named = {source for spec in specs for source in (spec.dataset.source, spec.dataset.transfer) if source is not None}
    ids = [source.name for source in map(split_source, named) if source.kind == "dataset"]
    if not ids:
        return {}
    query = select(Dataset.id, Dataset.info).where(Dataset.id.in_(ids)).order_by(Dataset.id)
    rows = session.execute(query.with_for_update(read=True) if lock else query)
    return {f"dataset:{row.id}": DatasetInfo.model_validate(row.info) for row in rows}


def submit(
    session: Session,
    *,
    owner_id: str,
    spec: JobSpec,
    named: Named | None = None,
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    preflight: bool = False,
    warnings: Sequence[WarningMessage] = (),
) -> Job:
    """Stores a job; with ``preflight`` it is checked before it waits for devices.

    ``named`` is what this transaction has locked by :func:`find_named`; by default it is looked up here. Whoever gives an
    idempotency key holds it, by :func:`find_repeat`. Nobody is notified: nobody can wait for a job that was not there.

    Raises:
        QueueLimitReached: the owner has as many unstarted jobs as the limit permits.
        InvalidSpec: the spec names a job that is gone, or that can no longer succeed.
    """
    named = find_named(session, spec, lock=True) if named is None else named
    if named.need_faults:
        raise InvalidSpec(named.need_faults)
    if preflight:
        status, reason = Status.CHECKING, "waits for its check: one step on a few rows"
    else:
        status, reason = by_needs(named.needs)
    resources = spec.resources
    told = [warning.model_dump() for warning in warnings]
    events = [_event(f"job.{status}", reason), *(_event("job.warning", each["message"], code=each["code"]) for each in told)]
    values: dict[str, Any] = {
        "id": new_id("job"),
        "owner_id": owner_id,
        "name": spec.name,
        "labels": spec.labels,
        "spec": spec.model_dump(mode="json"),
        "warnings": told,
        "status": status,
        "status_reason": reason,
        "version": len(events),
        "last_event_seq": len(events),
        "pool": resources.pool,
        "priority": Priority.named(spec.priority),
        "queue_class": Priority.named(spec.priority),
        "gpus": resources.gpus,
        "cpu_slots": resources.cpu_slots,
        "min_gpu_memory_gib": resources.min_gpu_memory_gib,
        "shape": resource_class_of(resources.gpus, resources.cpu_slots, resources.min_gpu_memory_gib),
        "max_runtime_seconds": resources.max_runtime_seconds,
        "attempt": 0,
        "crashes": 0,
        "max_attempts": spec.max_attempts,
        "run_seconds": 0.0,
        "gpu_seconds": 0.0,
        "dataset_id": _dataset_id(spec.dataset.source),
        "transfer_id": _dataset_id(spec.dataset.transfer),
        "idempotency_key": idempotency_key,
        "request_sha256": request_sha256,
    }
    related = {
        "events": events,
        "needs": [needed.id for needed in named.needs],
        "models": [model.id for model in named.models],
        "at": own_time(session),
    }
    row = session.execute(_STORE, {"job": values, "is_within_limit": False} | related).one_or_none()
    if row is None:
        refuse_over_limit(session, owner_id)  # after the jobs that it needs: a resume locks its job and then the owner
        row = session.execute(_STORE, {"job": values, "is_within_limit": True} | related).one()
    values["resource_class"] = values.pop("shape")
    return Job(**values, created_at=row.created_at, queued_at=row.queued_at, waiting_since=row.waiting_since)


def refuse_over_limit(session: Session, owner_id: str) -> None:
    """Raises QueueLimitReached if the owner has as many unstarted jobs as permitted; else none is added until the commit."""
    limit = session.execute(_LOCK_LIMITED, {"owner_id": owner_id}).scalar()
    if limit is None:
        return
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


_LOCK_LIMITED = text("SELECT max_queued_jobs FROM users WHERE id = :owner_id AND max_queued_jobs IS NOT NULL FOR NO KEY UPDATE")
_COLUMNS = (
    "id, owner_id, name, labels, spec, warnings, status, status_reason, version, last_event_seq, pool, priority, queue_class, "
    "gpus, cpu_slots, min_gpu_memory_gib, shape, max_runtime_seconds, attempt, crashes, max_attempts, run_seconds, gpu_seconds, "
    "dataset_id, transfer_id, idempotency_key, request_sha256"
)
_STORE = text(
    f"""
WITH limited AS (
    SELECT FROM users WHERE id = :job ->> 'owner_id' AND max_queued_jobs IS NOT NULL FOR NO KEY UPDATE
), job AS (
    INSERT INTO jobs ({_COLUMNS}, created_at, queued_at, waiting_since)
    SELECT {_COLUMNS}, moment, queued, queued
    FROM jsonb_populate_record(NULL::jobs, :job),
         coalesce(:at, now()) AS moment,
         LATERAL (SELECT CASE WHEN status = 'queued' THEN moment END AS queued) AS state
    WHERE :is_within_limit OR NOT EXISTS (SELECT FROM limited)
    RETURNING id, labels, created_at, queued_at, waiting_since
), labels AS (
    INSERT INTO job_labels (job_id, key, value)
    SELECT job.id, label.key, label.value FROM job, jsonb_each_text(job.labels) AS label
), needs AS (
    INSERT INTO job_dependencies (job_id, needs_job_id) SELECT job.id, needed FROM job, unnest(:needs) AS needed
), teachers AS (
    INSERT INTO job_teachers (job_id, model_id) SELECT job.id, model FROM job, unnest(:models) AS model
), events AS (
    INSERT INTO job_events (job_id, seq, type, message, data)
    SELECT job.id, seq, event ->> 'type', event ->> 'message', event -> 'data'
    FROM job, jsonb_array_elements(:events) WITH ORDINALITY AS told (event, seq)
)
SELECT created_at, queued_at, waiting_since FROM job
"""  # noqa: S608 - what is put in are words of this project
).bindparams(
    bindparam("job", type_=JSONB),
    bindparam("is_within_limit", type_=Boolean),
    bindparam("events", type_=JSONB),
    bindparam("needs", type_=ARRAY(Text)),
    bindparam("models", type_=ARRAY(Text)),
    bindparam("at", type_=DateTime(timezone=True)),
)
"""Stores a job with everything that belongs to it in one trip to the database. Of an owner with a limit it stores none, and locks
the owner, unless that was done and the limit permits it."""


def _event(type_: str, message: str, **data: str) -> dict[str, Any]:
    return {"type": type_, "message": message, "data": data}


def _dataset_id(source: str | None) -> str | None:
    kind, name = split_source(source or "")
    return name if kind == "dataset" else None
