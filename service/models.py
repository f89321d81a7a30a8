"""The catalogue of networks: uploads, unpacked and looked through before they are stored, and what finished jobs left."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Select, case, cast, exists, func, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from service.archives import Limits, unpack
from service.database import Database
from service.errors import Conflict, HandleTaken, InvalidFile, NotFound
from service.ids import new_id
from service.lifecycle import FINAL
from service.model_facts import read_facts
from service.model_folder import inspect_folder, refuse_loose_weights
from service.spec.source import TEACHER_PART
from service.store import Store, StoredFile
from service.tables import Job, JobDependency, JobTeacher, Model, User
from service.unlisted_files import list_files, unlisted

MAX_FILES = 1000
_MOST_USES_SHOWN = 10
_MOST_USES_READ = 1000
"""Of a model that more jobs use, the newest of them are looked through for those that have not finished."""


@dataclass(frozen=True)
class NewModel:
    """An uploaded archive with its description."""

    path: Path
    filename: str
    name: str
    task: str | None
    """None: the task that the folder states."""


def ingest(database: Database, store: Store, new: NewModel, *, owner_id: str, max_bytes: int) -> Model:
    """Checks and stores a network.

    Raises:
        InvalidFile: it cannot be used as a teacher.
    """
    refuse_loose_weights(new.filename)
    with TemporaryDirectory(prefix="unpacked-", dir=new.path.parent) as unpacked:
        limits = Limits(max_bytes=max_bytes, max_files=MAX_FILES)
        root, files = unpack(new.path, Path(unpacked), filename=new.filename, limits=limits)
        model = describe(root, files, owner_id=owner_id, name=new.name)
        if new.task is not None and model.task != new.task:
            raise InvalidFile(f"{new.filename!r} holds a network for {model.task}, not for {new.task}", param="/task")
        prefix = _prefix(model.id)
        with unlisted(database, store, prefix):
            model.files = [asdict(file) for file in store.put_folder(root, prefix)]
            database.run(partial(_list, model=model, prefix=prefix))
    return model


def describe(folder: Path, files: Sequence[Path], *, owner_id: str, name: str) -> Model:
    """The row of a new model, by the folder that contains ``files``; where these are stored is to be added.

    Raises:
        InvalidFile: the network could not be loaded.
    """
    info, facts = inspect_folder(folder, files), read_facts(folder, files)
    return Model(
        id=new_id("model"),
        owner_id=owner_id,
        name=name,
        task=info.task,
        classes=info.classes,
        input_shape=info.input_shape,
        **asdict(facts),
    )


def _list(session: Session, model: Model, prefix: str) -> None:
    list_files(session, prefix)
    session.add(model)


@dataclass(frozen=True)
class Listed:
    """A model as the catalogue shows it."""

    model: Model
    owner: str
    """The owner's name."""
    num_uses: int
    """Jobs that learn from it, or begin with it."""
    used_by: list[str]
    """The ids of up to ten of them, unfinished ones first, then new ones."""


def find(session: Session, model_id: str) -> Listed:
    """Reads one model. Raises NotFound."""
    listed = _listed(session, _CATALOGUE.where(Model.id == model_id))
    if not listed:
        raise _not_there(model_id)
    return listed[0]


def edit(session: Session, model_id: str, **changes: str | None) -> None:
    """Changes a model's ``name`` or ``handle``.

    Raises:
        NotFound: there is no such model.
        HandleTaken: another one has that handle.
    """
    model = session.get(Model, model_id, with_for_update=True)
    if model is None:
        raise _not_there(model_id)
    for field, value in changes.items():
        setattr(model, field, value)
    try:
        session.flush()
    except IntegrityError as error:
        raise HandleTaken(
            f"another model is called {changes.get('handle')!r}: take another name, or take it from that one first"
        ) from error


def _not_there(model_id: str) -> NotFound:
    return NotFound(f"there is no model {model_id!r}; GET /v1/models lists those that exist")


def find_file(session: Session, model_id: str, name: str) -> StoredFile:
    """Reads one file of a model's folder. Raises NotFound."""
    model = session.get(Model, model_id)
    if model is None:
        raise _not_there(model_id)
    for file in model.files:
        if file["name"] == name:
            return StoredFile(**file)
    raise NotFound(f"model {model_id} has no file {name!r}; it has {', '.join(file['name'] for file in model.files)}")


def page(session: Session, *, after: str | None, limit: int) -> tuple[Sequence[Listed], bool]:
    """Reads models, newest first, and whether there are more."""
    query = _CATALOGUE.order_by(Model.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Model.id < after)
    listed = _listed(session, query)
    return listed[:limit], len(listed) > limit


def _listed(session: Session, query: Select[Any]) -> list[Listed]:
    return [Listed(row[0], row[1], row[2], row[3]) for row in session.execute(query)]


def remove(session: Session, model_id: str) -> str:
    """Deletes an uploaded model; returns the store's prefix of its files, to be removed after the commit.

    Raises:
        NotFound: there is no such model.
        Conflict: a job that has not finished uses it, or it is a job's student.
    """
    model = session.get(Model, model_id, with_for_update=True)
    if model is None:
        raise _not_there(model_id)
    if model.job_id is not None:
        raise Conflict(
            f"model {model_id} is the {model.part} of job {model.job_id} and is deleted with it: DELETE /v1/jobs/{model.job_id}"
        )
    user = session.scalar(
        select(Job.id)
        .join(JobTeacher, JobTeacher.job_id == Job.id)
        .where(JobTeacher.model_id == model_id, Job.status.not_in(FINAL))
        .limit(1)
    )
    if user is not None:
        raise Conflict(f"job {user} uses model {model_id}; cancel it or wait until it has finished")
    session.delete(model)
    return _prefix(model_id)


def _prefix(model_id: str) -> str:
    return f"models/{model_id}"


_NAMED = JobTeacher.model_id == Model.id
_IS_NAMED_BY_ITS_JOB = func.jsonb_path_exists(
    Job.spec,
    cast("$.*.source ? (@ == $it)", JSONPATH),
    func.jsonb_build_object("it", "job:" + Model.job_id + case((Model.part == "teacher", TEACHER_PART), else_="")),
)
_WAITED = (
    select(JobDependency.job_id)
    .join(Job, Job.id == JobDependency.job_id)
    .where(
        JobDependency.needs_job_id == Model.job_id,
        _IS_NAMED_BY_ITS_JOB,
        ~exists().where(_NAMED, JobTeacher.job_id == JobDependency.job_id),
    )
    .correlate(Model)
)
"""The jobs that were submitted before this model was there, as what a job of that id was to leave."""
_LATEST = union_all(
    *(
        uses.order_by(id_.desc()).limit(_MOST_USES_READ)
        for uses, id_ in (
            (select(JobTeacher.job_id).where(_NAMED).correlate(Model), JobTeacher.job_id),
            (_WAITED, JobDependency.job_id),
        )
    )
).subquery()
_SHOWN = (
    select(Job.id)
    .join(_LATEST, _LATEST.c.job_id == Job.id)
    .order_by(Job.status.in_(FINAL), Job.id.desc())
    .limit(_MOST_USES_SHOWN)
)
_CATALOGUE: Select[Any] = select(
    Model,
    User.name,
    select(func.count()).where(_NAMED).correlate(Model).scalar_subquery()
    + _WAITED.with_only_columns(func.count()).scalar_subquery(),
    func.array(_SHOWN.scalar_subquery(), type_=ARRAY(Text)),
).join(User)
"""Each model with its owner's name and its uses, in one statement."""
