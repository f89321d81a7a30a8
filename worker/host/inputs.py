"""Fetches the datasets and the teachers that a spec names from the store to this host."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.spec import JobSpec
from service.spec.source import split_source
from service.store import Store
from service.tables import Dataset, Model

T = TypeVar("T")


class Retry(Protocol):
    """Repeats work on a database or a store until it is available."""

    def __call__(self, work: Callable[..., T]) -> T:
        """Returns the result of ``work``."""


class InputFetcher:
    """Fetches the inputs of one job.

    ``in_database`` runs a function of a session in a transaction, ``in_store`` one that uses the store.
    """

    def __init__(self, spec: dict[str, Any], folder: Path, *, store: Store, in_database: Retry, in_store: Retry) -> None:
        self._spec, self._folder, self._store = JobSpec.model_validate(spec), folder, store
        self._in_database, self._in_store = in_database, in_store

    def fetch(self, *, unfinished: bool = False) -> dict[str, Path]:
        """The local path of each source that the spec names.

        With ``unfinished`` a teacher whose job has not finished is left out.

        Raises:
            NotFound: one is gone.
        """
        inputs: dict[str, Path] = {}
        dataset = self._spec.dataset
        for part, source in (("dataset", dataset.source), ("transfer", dataset.transfer or "")):
            kind, name = split_source(source)
            if kind == "dataset":
                inputs[source] = self._fetch_dataset(name, part)
            elif kind == "file":
                inputs[source] = Path(name)
        for teacher in self._spec.teachers.values():
            kind, name = split_source(teacher.source)
            if kind == "file":
                inputs[teacher.source] = Path(name)
            if kind not in {"job", "model"} or teacher.source in inputs:
                continue
            folder = self._fetch_model(kind, name)
            if folder is not None:
                inputs[teacher.source] = folder
            elif kind == "model" or not unfinished:
                raise NotFound(f"the teacher {kind}:{name} has no stored network any more; name another in /teacher/source")
        return inputs

    def _fetch_dataset(self, dataset_id: str, part: str) -> Path:
        row = self._in_database(lambda session: session.get(Dataset, dataset_id))
        if row is None:
            raise NotFound(f"dataset {dataset_id} was deleted; upload it again and submit the job with its new id")
        target = self._folder / "inputs" / part / Path(row.path).name
        self._in_store(lambda: self._store.fetch(row.path, target, sha256=row.sha256))
        return target

    def _fetch_model(self, kind: str, name: str) -> Path | None:
        column = Model.job_id if kind == "job" else Model.id

        def find(session: Session) -> Model | None:
            return session.scalar(select(Model).where(column == name))

        row = self._in_database(find)
        if row is None:
            return None
        folder = self._folder / "inputs" / row.id
        for file in row.files:
            self._in_store(partial(self._store.fetch, file["path"], folder / file["name"], sha256=file["sha256"]))
        return folder
