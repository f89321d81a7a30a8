"""From a document to a stored job: what the spec names is looked up, and every fault is reported before anything is queued.

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
from service.errors import FieldError, InvalidFile, InvalidSpec
from service.formats import inspect_source
from service.lifecycle import Status
from service.security import Caller
from service.settings import Settings
from service.spec import JobSpec, parse_spec
from service.spec.data import DatasetInfo, as_declared
from service.spec.data_fit import chosen_splits, output_names
from service.spec.effect import dataset_warnings, spec_warnings
from service.spec.fit import TeacherInfo, check_fit, image_shape
from service.spec.source import split_source
from service.spec.tasks import TaskName
from service.spec.warning_message import WarningMessage
from service.tables import Dataset, Job, Model

_DATASET, _TRANSFER = "/dataset/source", "/dataset/transfer"


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
    """Stores the job that a document describes; returns it with True if it is new, with False if the key named an earlier one.

    Raises:
        InvalidSpec: with every fault at once.
        QueueLimitReached: the caller has as many unstarted jobs as the limit permits.
        Forbidden: the document asks for what only an admin may give.
        RequestInFlight, IdempotencyMismatch: see ``jobs.submit``.
    """
    digest = None if idempotency_key is None else _canonical_sha256(document)
    if idempotency_key is not None:
        # A repeat is answered before its document is checked, as what it names may be gone by now. The check reads files, so the
        # key is not held during it; jobs.submit looks again, holding the key until the commit.
        with database.transaction() as session:
            earlier = jobs.find_repeat(session, owner_id=caller.user_id, idempotency_key=idempotency_key, request_sha256=digest)
        if earlier is not None:
            return earlier, False
    spec, warnings = _check(database, settings, caller, document)
    with database.transaction() as session:
        return jobs.submit(
            session,
            owner_id=caller.user_id,
            spec=spec,
            idempotency_key=idempotency_key,
            request_sha256=digest,
            preflight=settings.preflight,
            warnings=warnings,
        )


def check(database: Database, settings: Settings, caller: Caller, document: Any) -> tuple[JobSpec, list[WarningMessage]]:
    """Computes the normalised spec, if it could be submitted now, and what the job's answer would warn of; stores nothing.

    Raises what ``submit`` raises.
    """
    checked = _check(database, settings, caller, document)
    with database.transaction() as session:
        jobs.refuse_over_limit(session, caller.user_id)
    return checked


def _check(database: Database, settings: Settings, caller: Caller, document: Any) -> tuple[JobSpec, list[WarningMessage]]:
    """Everything that needs no lock: the look-ups of one short transaction, then the files and the fit of the parts."""
    spec = parse_spec(document)
    caller.require_priority(spec.priority)
    with database.transaction() as session:
        named = _look_up(session, spec)
        named.faults += resource_faults(
            session, spec.resources, configured_pools=settings.pools, memory_seconds=settings.worker_memory_seconds
        )
    faults = named.faults
    dataset = _dataset_info(spec, named, settings, pointer=_DATASET, faults=faults)
    for pointer, source in _teacher_sources(spec):
        planned = named.planned.get(source)
        info = None if planned is None else _dataset_info(planned, named, settings, pointer=pointer, faults=faults)
        if planned is not None and info is not None:
            shape, names = image_shape(info, planned.dataset.input), output_names(planned.dataset, info)
            named.teachers[source] = TeacherInfo(task=planned.task, classes=names, input_shape=shape)
    transfer = None
    if spec.dataset.transfer is not None:
        transfer = _dataset_info(spec, named, settings, pointer=_TRANSFER, faults=faults, transfer=True)
    if dataset is not None:
        faults += check_fit(spec, dataset, teachers=named.teachers, transfer=transfer)
    if faults:
        raise InvalidSpec(faults)
    if dataset is None:
        return spec, spec_warnings(spec)
    return _settled(spec, dataset), spec_warnings(spec) + dataset_warnings(spec, dataset)


def _settled(spec: JobSpec, dataset: DatasetInfo) -> JobSpec:
    """Names the splits that the job uses and its targets that are numbers, as the dataset's description says them.

    So the stored spec repeats the job whatever a later release reads in the splits' names and in whole floats.
    """
    chosen = chosen_splits(spec.dataset, list(dataset.splits))
    numbers = [name for name in spec.dataset.targets if dataset.columns[name].kind == "number"]
    return spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"splits": chosen, "numbers": numbers})})


def _canonical_sha256(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _look_up(session: Session, spec: JobSpec) -> _Named:
    named = _Named()
    needs, need_faults = jobs.needed_jobs(session, spec)
    needs_by_id = {job.id: job for job in needs}
    models = jobs.teacher_models(session, spec)
    infos = {f"model:{model.id}": _teacher_info(model) for model in models}
    infos |= {f"job:{model.job_id}": _teacher_info(model) for model in models}
    for pointer, source in _teacher_sources(spec):
        kind, name = split_source(source)
        if source in infos:
            named.teachers[source] = infos[source]
        elif kind == "model":
            named.faults.append(FieldError(pointer=pointer, message=f"there is no model {name!r}; GET /v1/models lists them"))
        elif kind == "job":
            job = needs_by_id.get(name)
            if job is None or job.status == Status.SUCCEEDED:
                message = (
                    f"job {name} {'does not exist' if job is None else 'left no student'}; GET /v1/models lists finished students"
                )
                named.faults.append(FieldError(pointer=pointer, message=message))
            else:
                named.planned[source] = JobSpec.model_validate(job.spec)
    named.datasets = _read_datasets(session, [spec, *named.planned.values()])
    reported = {fault.pointer for fault in named.faults}
    named.faults += [fault for fault in need_faults if fault.pointer not in reported]
    return named


def _teacher_sources(spec: JobSpec) -> list[tuple[str, str]]:
    """The source of each teacher, behind the pointer to it."""
    return [(f"/{place}/source", teacher.source) for place, teacher in spec.teachers.items()]


def _read_datasets(session: Session, specs: list[JobSpec]) -> dict[str, DatasetInfo]:
    """Reads what is known of the uploaded datasets of these specs, by source."""
    named = {source for spec in specs for source in (spec.dataset.source, spec.dataset.transfer) if source is not None}
    ids = [source.name for source in map(split_source, named) if source.kind == "dataset"]
    if not ids:
        return {}
    rows = session.execute(select(Dataset.id, Dataset.info).where(Dataset.id.in_(ids)))
    return {f"dataset:{row.id}": DatasetInfo.model_validate(row.info) for row in rows}


def _dataset_info(
    spec: JobSpec,
    named: _Named,
    settings: Settings,
    *,
    pointer: str,
    faults: list[FieldError],
    transfer: bool = False,
) -> DatasetInfo | None:
    """Describes the spec's dataset, or its transfer data; None behind a fault."""
    source = spec.dataset.transfer if transfer else spec.dataset.source
    assert source is not None, "only a spec with transfer data is asked for them"
    kind, name = split_source(source)
    if source in named.datasets:
        return as_declared(named.datasets[source], spec.dataset.numbers)
    try:
        if kind == "dataset":
            raise InvalidFile(f"there is no dataset {name!r}; GET /v1/datasets lists them")
        return inspect_source(spec, source, find_file=lambda name: allowed_file(name, settings.file_roots), transfer=transfer)
    except InvalidFile as error:
        faults.append(FieldError(pointer=pointer, message=error.detail))
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


def _teacher_info(model: Model) -> TeacherInfo:
    shape = model.input_shape
    # What an uploaded network's image processor makes of other sizes and of grey images, the check of the job finds out.
    input_shape = (shape[0], shape[1], shape[2]) if len(shape) == 3 and model.job_id is not None else None
    return TeacherInfo(task=cast(TaskName, model.task), classes=model.classes, input_shape=input_shape)
