"""Uploaded networks, and the list of all that may teach: unpacked and looked through before they are stored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.archives import Limits, unpack
from service.database import Database
from service.errors import Conflict, InvalidFile, NotFound
from service.ids import new_id
from service.lifecycle import FINAL
from service.model_folder import inspect_folder, refuse_loose_weights
from service.store import Store, StoredFile
from service.tables import Job, JobTeacher, Model, User
from service.unlisted_files import list_files, unlisted

_MAX_FILES = 1000


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
        limits = Limits(max_bytes=max_bytes, max_files=_MAX_FILES)
        root, files = unpack(new.path, Path(unpacked), filename=new.filename, limits=limits)
        info = inspect_folder(root, files)
        if new.task is not None and info.task != new.task:
            raise InvalidFile(f"{new.filename!r} holds a network for {info.task}, not for {new.task}", param="/task")
        model_id = new_id("model")
        prefix = _prefix(model_id)
        with unlisted(database, store, prefix):
            stored = store.put_folder(root, prefix)
            model = Model(
                id=model_id,
                owner_id=owner_id,
                name=new.name,
                task=info.task,
                classes=info.classes,
                input_shape=info.input_shape,
                files=[asdict(file) for file in stored],
            )
            database.run(partial(_list, model=model, prefix=prefix))
    return model


def _list(session: Session, model: Model, prefix: str) -> None:
    list_files(session, prefix)
    session.add(model)


def find(session: Session, model_id: str) -> tuple[Model, str]:
    """Reads one model and its owner's name. Raises NotFound."""
    row = session.execute(select(Model, User.name).join(User).where(Model.id == model_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no model {model_id!r}; GET /v1/models lists those that exist")
    model, owner = row
    return model, owner


def find_file(session: Session, model_id: str, name: str) -> StoredFile:
    """Reads one file of a model's folder. Raises NotFound."""
    model, _ = find(session, model_id)
    for file in model.files:
        if file["name"] == name:
            return StoredFile(**file)
    raise NotFound(f"model {model_id} has no file {name!r}; it has {', '.join(file['name'] for file in model.files)}")


def page(session: Session, *, after: str | None, limit: int) -> tuple[Sequence[tuple[Model, str]], bool]:
    """Reads models with their owners' names, newest first, and whether there are more."""
    query = select(Model, User.name).join(User).order_by(Model.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Model.id < after)
    rows = [(model, owner) for model, owner in session.execute(query)]
    return rows[:limit], len(rows) > limit


def remove(session: Session, model_id: str) -> str:
    """Deletes an uploaded model; returns the store's prefix of its files, to be removed after the commit.

    Raises:
        NotFound: there is no such model.
        Conflict: a job that has not finished uses it, or it is a job's student.
    """
    model = session.get(Model, model_id, with_for_update=True)
    if model is None:
        raise NotFound(f"there is no model {model_id!r}; GET /v1/models lists those that exist")
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
        raise Conflict(f"job {user} learns from model {model_id}; cancel it or wait until it has finished")
    session.delete(model)
    return _prefix(model_id)


def _prefix(model_id: str) -> str:
    return f"models/{model_id}"
