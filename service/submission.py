"""From a document to a stored job: what the spec names is looked up, and every fault is reported before anything is queued.

One transaction looks up what the spec names and locks it, checks that the parts fit, and stores the job. A file that it names is
read outside of any transaction: where one is met that was not read yet, the transaction ends, and another begins once it is.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy.orm import Session

from service import jobs, previews
from service.capacity import resource_faults
from service.data_urls import require_allowed
from service.database import Database
from service.errors import FieldError, InvalidFile, InvalidSpec, NoWorker
from service.file_roots import allowed_file, allowed_folder
from service.formats import inspect_source
from service.lifecycle import Status
from service.model_folder import inspect_folder
from service.scheduling.snapshot import live_workers
from service.security import Caller
from service.settings import Settings
from service.spec import JobSpec, parse_spec
from service.spec.data import DatasetInfo, as_declared
from service.spec.data_fit import chosen_splits, image_shape, output_names, problem_type
from service.spec.effect import dataset_warnings, spec_warnings
from service.spec.fit import TeacherInfo, check_fit, spec_faults
from service.spec.source import TEACHER_PART, is_given, is_remote, split_network, split_source
from service.spec.tasks import TaskName
from service.spec.warning_message import WarningMessage
from service.tables import Job, Model, Preview

_DATASET, _TRANSFER = "/dataset/source", "/dataset/transfer"


class _Unread(Exception):
    """Ends a transaction that has met a file of the spec: it is read outside."""

    def __init__(self, pointer: str, read: Callable[[], DatasetInfo | TeacherInfo]) -> None:
        super().__init__(pointer)
        self.pointer, self.read = pointer, read


_Files = dict[str, DatasetInfo | TeacherInfo | InvalidFile]
"""What is known of the files and folders that a spec names, by pointer."""
T = TypeVar("T")


@dataclass(frozen=True)
class _Checked:
    """A spec that could be stored, as it would be, and what the database has of the things that it names."""

    spec: JobSpec
    warnings: list[WarningMessage]
    named: jobs.Named


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
        RequestInFlight, IdempotencyMismatch: see ``jobs.find_repeat``.
    """
    digest = None if idempotency_key is None else _canonical_sha256(document)

    def store(session: Session, files: _Files) -> tuple[Job, bool]:
        if idempotency_key is not None:
            # Before the document is checked, as what it names may be gone by the time of a repeat.
            earlier = jobs.find_repeat(session, owner_id=caller.user_id, idempotency_key=idempotency_key, request_sha256=digest)
            if earlier is not None:
                return earlier, False
        checked = _check(session, settings, caller, document, files, lock=True)
        job = jobs.submit(
            session,
            owner_id=caller.user_id,
            spec=checked.spec,
            named=checked.named,
            idempotency_key=idempotency_key,
            request_sha256=digest,
            preflight=settings.preflight,
            warnings=checked.warnings,
        )
        return job, True

    return _run(database, store)


def check(database: Database, settings: Settings, caller: Caller, document: Any) -> tuple[JobSpec, list[WarningMessage]]:
    """Computes the normalised spec, if it could be submitted now, and what the job's answer would warn of; stores nothing.

    Raises what ``submit`` raises.
    """

    def look(session: Session, files: _Files) -> _Checked:
        checked = _check(session, settings, caller, document, files)
        jobs.refuse_over_limit(session, caller.user_id)
        return checked

    checked = _run(database, look)
    return checked.spec, checked.warnings


def ask_preview(
    database: Database, settings: Settings, caller: Caller, document: Any, *, num_samples: int
) -> tuple[Preview, list[WarningMessage]]:
    """Has a worker make a preview of a spec that could be submitted now; returns its row, and what a job would warn of.

    Raises:
        InvalidSpec, Forbidden: as ``submit`` does.
        NoWorker: no worker lives that could make it.
        PreviewLimitReached: the caller waits for as many as permitted.
    """

    def store(session: Session, files: _Files) -> tuple[Preview, list[WarningMessage]]:
        checked = _check(session, settings, caller, document, files)
        pool = checked.spec.resources.pool
        if all(worker.draining for worker in live_workers(session, lease_seconds=settings.lease_seconds, pool=pool)):
            raise NoWorker(f"no worker of pool {pool!r} lives, and workers alone read data as jobs do", retry_after_seconds=60)
        return previews.ask(session, checked.spec, owner_id=caller.user_id, num_samples=num_samples), checked.warnings

    return _run(database, store)


def _run(database: Database, work: Callable[[Session, _Files], T]) -> T:
    """Runs ``work`` in one transaction; in another one for each file that it meets, with the file read between them."""
    files: _Files = {}
    while True:
        try:
            return database.run(lambda session: work(session, files))
        except _Unread as file:
            try:
                files[file.pointer] = file.read()
            except InvalidFile as error:
                files[file.pointer] = error


def _check(session: Session, settings: Settings, caller: Caller, document: Any, files: _Files, *, lock: bool = False) -> _Checked:
    """Reads and checks a document. Raises InvalidSpec with every fault, and _Unread for a file that ``files`` does not have."""
    spec = parse_spec(document)
    caller.require_priority(spec.priority)
    named = jobs.find_named(session, spec, lock=lock)
    ids = {model.handle: f"model:{model.id}" for model in named.models if model.handle is not None}
    called = {pointer: source.name for pointer, source in spec.given_networks.items() if source.kind == "model"}
    if resolved := {pointer: ids[name] for pointer, name in called.items() if name in ids}:
        spec = parse_spec(_with_sources(document, resolved))
    infos = dict(named.datasets)
    teachers, planned, faults = _teachers(session, spec, named)
    infos |= jobs.find_datasets(session, planned.values())
    faults += resource_faults(
        session, spec.resources, configured_pools=settings.pools, memory_seconds=settings.worker_memory_seconds
    )

    def describe(spec: JobSpec, source: str, *, pointer: str) -> DatasetInfo | None:
        """None for data that only a worker reads, or that cannot be read."""
        try:
            if is_remote(source):
                _require_allowed(source, settings)
                return None
            return _dataset_info(spec, source, infos, files, settings, pointer=pointer)
        except InvalidFile as error:
            faults.append(FieldError(pointer=pointer, message=error.detail))
            return None

    dataset = describe(spec, spec.dataset.source, pointer=_DATASET)
    for pointer, source in _teacher_sources(spec):
        plan = planned.get(source)
        info = None if plan is None else describe(plan, plan.dataset.source, pointer=pointer)
        if plan is not None and info is not None:
            shape = None if _begins_with_another(plan, source) else image_shape(plan.dataset, info)
            names = output_names(plan.dataset, info)
            teachers[source] = TeacherInfo(
                task=plan.task, classes=names, input_shape=shape, problem_type=problem_type(plan.dataset, info)
            )
    for pointer, source in _teacher_sources(spec):
        if split_source(source).kind == "file":
            folder = _read_outside(pointer, files, partial(_describe_folder, split_source(source).name, settings.file_roots))
            if isinstance(folder, TeacherInfo):
                teachers[source] = folder
            elif isinstance(folder, InvalidFile):
                faults.append(FieldError(pointer=pointer, message=folder.detail))
    transfer = None
    if spec.dataset.transfer is not None:
        transfer = describe(spec, spec.dataset.transfer, pointer=_TRANSFER)
    if dataset is not None:
        faults += check_fit(spec, dataset, teachers=teachers, transfer=transfer)
    elif is_remote(spec.dataset.source):
        faults += spec_faults(spec)
    if faults:
        raise InvalidSpec(faults)
    if dataset is None:
        return _Checked(spec, spec_warnings(spec), named)
    return _Checked(_settled(spec, dataset), spec_warnings(spec) + dataset_warnings(spec, dataset), named)


def _settled(spec: JobSpec, dataset: DatasetInfo) -> JobSpec:
    """Names the splits that the job uses and its targets that are numbers, as the dataset's description says them.

    So the stored spec repeats the job whatever a later release reads in the splits' names and in whole floats.
    """
    chosen = chosen_splits(spec.dataset, list(dataset.splits))
    numbers = [name for name in spec.dataset.targets if dataset.columns[name].kind == "number"]
    return spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"splits": chosen, "numbers": numbers})})


def _require_allowed(source: str, settings: Settings) -> None:
    if split_source(source).kind == "s3":
        require_allowed(source, settings.data_urls)


def _with_sources(document: Any, sources: Mapping[str, str]) -> Any:
    """A copy of the document with other sources at these pointers, ``/student/source`` or ``/teacher/0/source``."""
    changed = copy.deepcopy(document)
    for pointer, source in sources.items():
        *way, last = pointer.split("/")[1:]
        part = changed
        for step in way:
            part = part[int(step) if isinstance(part, list) else step]
        part[last] = source
    return changed


def _canonical_sha256(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _teachers(
    session: Session, spec: JobSpec, named: jobs.Named
) -> tuple[dict[str, TeacherInfo], dict[str, JobSpec], list[FieldError]]:
    """What is known of the networks that exist: of those that are there, and the specs of those that are still to be trained,
    whose classes and shape are those of their datasets. Both by source, with the faults of the others."""
    needs_by_id = {job.id: job for job in named.needs}
    infos = {f"model:{model.id}": _teacher_info(model) for model in named.models}
    infos |= {_left_as(model): _teacher_info(model) for model in named.models}
    teachers: dict[str, TeacherInfo] = {}
    planned: dict[str, JobSpec] = {}
    faults: list[FieldError] = []
    for pointer, source in _teacher_sources(spec):
        kind, name, part = split_network(source)
        if source in infos:
            teachers[source] = infos[source]
        elif kind == "model":
            near = ", ".join(f"model:{handle}" for handle in jobs.similar_handles(session, name))
            remedy = f"there is {near}" if near else "GET /v1/models lists them"
            faults.append(FieldError(pointer=pointer, message=f"there is no model {name!r}; {remedy}"))
        elif kind == "job":
            job = needs_by_id.get(name)
            plan = None if job is None else JobSpec.model_validate(job.spec)
            if plan is not None and part == "teacher" and len(plan.trained_teachers) != 1:
                faults.append(FieldError(pointer=pointer, message=_why_no_teacher(name, plan)))
            elif job is None or job.status == Status.SUCCEEDED:
                why = "does not exist" if job is None else f"left no {part}"
                message = f"job {name} {why}; GET /v1/models lists what finished jobs left"
                faults.append(FieldError(pointer=pointer, message=message))
            elif plan is not None:
                planned[source] = plan
    reported = {fault.pointer for fault in faults}
    return teachers, planned, faults + [fault for fault in named.need_faults if fault.pointer not in reported]


def _begins_with_another(spec: JobSpec, source: str) -> bool:
    """Whether the network that a job is to leave as ``source`` reads as one that existed before."""
    part = spec.trained_teachers[0] if split_network(source).part == "teacher" else spec.student
    return is_given(part.source)


def _left_as(model: Model) -> str:
    """The source by which a model is named as what its job left."""
    return f"job:{model.job_id}{TEACHER_PART if model.part == 'teacher' else ''}"


def _why_no_teacher(job_id: str, spec: JobSpec) -> str:
    """Why ``job:ID/teacher`` names nothing, and what to name instead."""
    if spec.trained_teachers:
        return f"job {job_id} trains several teachers, and this does not say which: upload one of them, and name it as model:ID"
    return f"job {job_id} trains no teacher of its own: name what it learns from, {spec.first_teacher.source}"


def _teacher_sources(spec: JobSpec) -> list[tuple[str, str]]:
    """The source of each teacher, and the student's, behind the pointer to it."""
    return [
        *((f"/{place}/source", teacher.source) for place, teacher in spec.teachers.items()),
        ("/student/source", spec.student.source),
    ]


def _dataset_info(
    spec: JobSpec, source: str, stored: Mapping[str, DatasetInfo], files: _Files, settings: Settings, *, pointer: str
) -> DatasetInfo:
    """Describes the spec's dataset, or its transfer data. Raises InvalidFile, and _Unread."""
    kind, name = split_source(source)
    if source in stored:
        return as_declared(stored[source], spec.dataset.numbers)
    if kind == "dataset":
        raise InvalidFile(f"there is no dataset {name!r}; GET /v1/datasets lists them")

    def read() -> DatasetInfo:
        find_file = partial(allowed_file, roots=settings.file_roots)
        return inspect_source(spec, source, find_file=find_file, transfer=pointer == _TRANSFER)

    if kind != "file":
        return read()
    found = _read_outside(pointer, files, read)
    if isinstance(found, InvalidFile):
        raise found
    if not isinstance(found, DatasetInfo):
        raise TypeError(f"{pointer} names a dataset")
    return found


def _read_outside(
    pointer: str, files: _Files, read: Callable[[], DatasetInfo | TeacherInfo]
) -> DatasetInfo | TeacherInfo | InvalidFile:
    """What was read of a file or folder between two transactions. Raises _Unread if it was not read yet."""
    found = files.get(pointer)
    if found is None:
        raise _Unread(pointer, read)
    return found


def _describe_folder(name: str, roots: list[Path]) -> TeacherInfo:
    """Looks through the folder of a network that can teach. Raises InvalidFile."""
    folder = allowed_folder(name, roots)
    info = inspect_folder(folder, [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()])
    return TeacherInfo(task=info.task, classes=info.classes, input_shape=None, problem_type=info.problem_type)


def _teacher_info(model: Model) -> TeacherInfo:
    shape = model.input_shape
    # What the image processor of an uploaded network, or of one that began with such, makes of other images, the check finds out.
    is_built = model.job_id is not None and model.base is None
    input_shape = (shape[0], shape[1], shape[2]) if len(shape) == 3 and is_built else None
    return TeacherInfo(task=cast(TaskName, model.task), classes=model.classes, input_shape=input_shape)
