"""From a document to a stored job: what the spec names is looked up, and every fault is told before anything is queued.

Order: read the spec; look at what it names (files outside any transaction); check that the parts fit; then, in one transaction,
hold the dataset, the teacher and the needed jobs, look again whether they are there, and store the job.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import jobs
from service.capacity import resource_faults
from service.database import Database
from service.errors import FieldError, Forbidden, InvalidFile, InvalidSpec, QueueLimitReached
from service.formats import inspect_dataset
from service.lifecycle import Status
from service.security import Caller
from service.settings import Settings
from service.spec import JobSpec, parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo, Task
from service.spec.data_fit import output_names
from service.spec.fit import TeacherInfo, check_fit, image_shape
from service.spec.source import split_source
from service.tables import Dataset, Job, Model

_DATASET = "/dataset/source"


@dataclass
class _Named:
    """What the database knows of the things that a spec names."""

    datasets: dict[str, DatasetInfo] = field(default_factory=dict)
    """By source."""
    teachers: dict[str, TeacherInfo] = field(default_factory=dict)
    """By source."""
    planned: dict[str, JobSpec] = field(default_factory=dict)
    """By source, of a teacher that is still to be trained: its classes and shape are those of its dataset."""
    faults: list[FieldError] = field(default_factory=list)


def submit(
    database: Database,
    settings: Settings,
    caller: Caller,
    document: Any,
    *,
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Stores the job that a document describes; True beside it when it is new, False when the key named an earlier one.

    Raises:
        InvalidSpec: with every fault at once.
        QueueLimitReached: the caller has as many waiting jobs as may be.
        Forbidden: it asks for what only an admin may.
        RequestInFlight, IdempotencyMismatch: see ``jobs.submit``.
    """
    digest = None if idempotency_key is None else _canonical_sha256(document)
    if idempotency_key is not None:
        with database.transaction() as session:
            earlier = jobs.find_repeat(session, owner_id=caller.user_id, idempotency_key=idempotency_key, request_sha256=digest)
        if earlier is not None:
            return earlier, False
    spec = check(database, settings, caller, document)
    with database.transaction() as session:
        dataset_id, teacher_model_ids = _hold(session, spec)
        return jobs.submit(
            session,
            owner_id=caller.user_id,
            spec=spec,
            dataset_id=dataset_id,
            teacher_model_ids=teacher_model_ids,
            idempotency_key=idempotency_key,
            request_sha256=digest,
            preflight=settings.preflight,
        )


def check(database: Database, settings: Settings, caller: Caller, document: Any) -> JobSpec:
    """The normalised spec, if it could be submitted now; stores nothing. Raises what ``submit`` raises."""
    spec = parse_spec(document)
    if spec.priority == "high" and caller.role != "admin":
        raise Forbidden("priority 'high' is an admin's to give; use 'normal' or 'low'", param="/priority")
    full: QueueLimitReached | None = None
    with database.transaction() as session:
        named = _look_up(session, spec)
        named.faults += resource_faults(
            session, spec.resources, configured_pools=settings.pools, memory_seconds=settings.worker_memory_seconds
        )
        try:
            jobs.refuse_over_limit(session, caller.user_id)
        except QueueLimitReached as error:
            full = error
    faults = named.faults
    dataset = _dataset_info(spec, named, settings, pointer=_DATASET, faults=faults)
    for pointer, source in _teacher_sources(spec):
        planned = named.planned.get(source)
        info = None if planned is None else _dataset_info(planned, named, settings, pointer=pointer, faults=faults)
        if planned is not None and info is not None:
            shape, names = image_shape(info, planned.dataset.input), output_names(planned.dataset, info)
            named.teachers[source] = TeacherInfo(task=planned.task, classes=names, input_shape=shape)
    if dataset is not None:
        faults += check_fit(spec, dataset, teachers=named.teachers)
    if faults:
        raise InvalidSpec(faults)
    if full is not None:
        raise full
    return spec


def _canonical_sha256(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _look_up(session: Session, spec: JobSpec) -> _Named:
    named = _Named()
    _look_up_dataset(session, spec.dataset.source, named)
    for pointer, source in _teacher_sources(spec):
        kind, name = split_source(source)
        if kind == "model":
            model = session.get(Model, name)
            if model is None:
                named.faults.append(FieldError(pointer=pointer, message=f"there is no model {name!r}; GET /v1/models lists them"))
            else:
                named.teachers[source] = _teacher_info(model)
        elif kind == "job":
            _look_up_teacher_job(session, name, named, pointer=pointer)
    told = {fault.pointer for fault in named.faults}
    named.faults += [fault for fault in jobs.needed_jobs(session, spec)[1] if fault.pointer not in told]
    return named


def _teacher_sources(spec: JobSpec) -> list[tuple[str, str]]:
    """Each teacher's source behind the pointer to it."""
    return [(f"/{place}/source", teacher.source) for place, teacher in spec.teachers.items()]


def _look_up_teacher_job(session: Session, job_id: str, named: _Named, *, pointer: str) -> None:
    source = f"job:{job_id}"
    model = session.scalar(select(Model).where(Model.job_id == job_id))
    if model is not None:
        named.teachers[source] = _teacher_info(model)
        return
    job = session.get(Job, job_id)
    if job is None or job.status == Status.SUCCEEDED:
        what = "does not exist" if job is None else "left no student"
        named.faults.append(FieldError(pointer=pointer, message=f"job {job_id} {what}; GET /v1/models lists finished students"))
        return
    named.planned[source] = JobSpec.model_validate(job.spec)
    _look_up_dataset(session, named.planned[source].dataset.source, named)


def _look_up_dataset(session: Session, source: str, named: _Named) -> None:
    kind, name = split_source(source)
    if kind == "dataset":
        row = session.get(Dataset, name)
        if row is not None:
            named.datasets[source] = DatasetInfo.model_validate(row.info)


def _dataset_info(
    spec: JobSpec, named: _Named, settings: Settings, *, pointer: str, faults: list[FieldError]
) -> DatasetInfo | None:
    dataset = spec.dataset
    kind, name = split_source(dataset.source)
    try:
        match kind:
            case "builtin" if name in BUILTIN_DATASETS:
                return BUILTIN_DATASETS[name].info
            case "builtin":
                message = f"{name!r} is not built in; use one of {', '.join(sorted(BUILTIN_DATASETS))}"
            case "file":
                path = allowed_file(name, settings.file_roots)
                return inspect_dataset(
                    path, filename=path.name, task=spec.task, input_column=dataset.input, target_columns=dataset.targets
                )
            case _ if dataset.source in named.datasets:
                return named.datasets[dataset.source]
            case _:
                message = f"there is no dataset {name!r}; GET /v1/datasets lists them"
    except InvalidFile as error:
        message = error.detail
    faults.append(FieldError(pointer=pointer, message=message))
    return None


def allowed_file(name: str, roots: list[Path]) -> Path:
    """The file that ``file:NAME`` means, links followed. Raises InvalidFile when it is not under a root that is allowed."""
    try:
        path = Path(name).resolve()
        inside = any(path.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidFile(f"{name!r} is no path") from error
    if not inside:
        allowed = ", ".join(map(str, roots)) or "none: upload the file with POST /v1/datasets instead"
        raise InvalidFile(f"{name!r} is outside the folders that this service may read ({allowed})")
    if not path.is_file():
        raise InvalidFile(f"there is no file {name!r}")
    return path


def _hold(session: Session, spec: JobSpec) -> tuple[str | None, list[str]]:
    """Locks what the spec names against deletion until the job is stored; the dataset's id and those of the teachers' models."""
    _, faults = jobs.needed_jobs(session, spec, lock=True)
    dataset_id, model_ids = None, list[str]()
    kind, name = split_source(spec.dataset.source)
    if kind == "dataset":
        dataset_id = session.scalar(select(Dataset.id).where(Dataset.id == name).with_for_update(read=True))
        if dataset_id is None:
            faults.append(FieldError(pointer=_DATASET, message=f"dataset {name!r} was deleted a moment ago"))
    # In one order, so that two submissions never wait for each other.
    for pointer, source in sorted(_teacher_sources(spec), key=lambda each: each[1]):
        kind, name = split_source(source)
        if kind not in {"job", "model"}:
            continue
        column = Model.job_id if kind == "job" else Model.id
        model_id = session.scalar(select(Model.id).where(column == name).with_for_update(read=True))
        if model_id is not None:
            model_ids.append(model_id)
        elif kind == "model":
            faults.append(FieldError(pointer=pointer, message=f"model {name!r} was deleted a moment ago"))
    if faults:
        raise InvalidSpec(faults)
    return dataset_id, model_ids


def _teacher_info(model: Model) -> TeacherInfo:
    shape = model.input_shape
    input_shape = (shape[0], shape[1], shape[2]) if len(shape) == 3 else None
    return TeacherInfo(task=cast(Task, model.task), classes=model.classes, input_shape=input_shape)
