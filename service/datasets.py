"""Uploaded datasets: read through before they are stored, stored before they are listed; the same bytes are stored once.

What is stored are the shards that the file is converted to while it is checked, and the file itself if the operator wants that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from pydantic import TypeAdapter
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database import Database
from service.errors import Conflict, NotFound
from service.formats import Sample, first_samples, inspect_dataset
from service.ids import new_id
from service.lifecycle import FINAL
from service.spec.tasks import TASKS, TaskName
from service.store import Store
from service.tables import Dataset, Job, User
from service.unlisted_files import list_files, unlisted

NUM_SAMPLES = 5
"""Rows that are kept for people to view."""
_SAMPLES, _SHARDS = "samples.json", "shards"
_SAMPLE_LIST = TypeAdapter(list[Sample])


WEIGHT_MARK = ",,"
"""Between the targets and the weight in a stored ``target_column``."""


@dataclass(frozen=True)
class NewDataset:
    """An uploaded file with its description."""

    path: Path
    filename: str
    sha256: str
    size: int
    name: str
    task: TaskName
    input_column: str = ""
    """Empty: the default column of the task. Of a task that reads pairs of texts it may be two, with a comma between."""
    target_column: str = ""
    """One column, or several with commas between; empty: the default columns of the task. Two commas go before the column of the
    rows' weights, if there is one: no target's name is empty."""
    skip_broken: bool = False
    """Whether rows whose file of an image or of sound cannot be read are left out of what is stored."""

    @property
    def columns(self) -> "_Columns":
        named, _, weight = self.target_column.partition(WEIGHT_MARK)
        targets = named.split(",") if named else None
        inputs = self.input_column.split(",") if TASKS[self.task].takes_pairs else [self.input_column]
        return {
            "input_column": (inputs if len(inputs) > 1 else inputs[0]) or None,
            "target_columns": targets,
            "weight_column": weight or None,
        }


class _Columns(TypedDict):
    input_column: str | list[str] | None
    target_columns: list[str] | None
    weight_column: str | None


def ingest(
    database: Database, store: Store, new: NewDataset, *, owner_id: str, keep_original: bool = False
) -> tuple[Dataset, bool]:
    """Checks, converts and stores a dataset; returns it with True if it is new, with False if bytes, task and columns are known.

    The folder of the file has room for its shards. ``keep_original``: the file is stored beside them.

    Raises:
        InvalidFile: it cannot be trained on.
    """
    known = database.run(lambda session: _same(session, new))
    # Where rows were left out and none may be, the file is read once more, and refused with them.
    if known is not None and (new.skip_broken or not _lacks_rows(known)):
        return known, False
    shards = new.path.with_name(_SHARDS)
    info = inspect_dataset(
        new.path, filename=new.filename, task=new.task, **new.columns, skip_broken=new.skip_broken, shards=shards
    )
    samples = first_samples(
        shards, filename=new.filename, task=new.task, **new.columns, num_rows=NUM_SAMPLES, columns=info.columns
    )
    summary = new.path.with_name(_SAMPLES)
    summary.write_bytes(_SAMPLE_LIST.dump_json(samples))
    values = {"owner_id": owner_id, "info": info.model_dump(mode="json")}
    return _store(database, store, new, values, shards, summary, keep_original=keep_original)


def samples(store: Store, dataset: Dataset) -> list[Sample]:
    """Reads the first rows of a dataset. Raises NotFound if its files are gone."""
    return _SAMPLE_LIST.validate_json(b"".join(store.stream(f"{_prefix(dataset.id)}/{_SAMPLES}")))


def find(session: Session, dataset_id: str) -> tuple[Dataset, str]:
    """Reads one dataset and its owner's name. Raises NotFound."""
    row = session.execute(select(Dataset, User.name).join(User).where(Dataset.id == dataset_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no dataset {dataset_id!r}; GET /v1/datasets lists those that exist")
    dataset, owner = row
    return dataset, owner


def page(session: Session, *, after: str | None, limit: int) -> tuple[Sequence[tuple[Dataset, str]], bool]:
    """Reads datasets with their owners' names, newest first, and whether there are more."""
    query = select(Dataset, User.name).join(User).order_by(Dataset.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Dataset.id < after)
    rows = [(dataset, owner) for dataset, owner in session.execute(query)]
    return rows[:limit], len(rows) > limit


def remove(session: Session, dataset_id: str) -> str:
    """Deletes a dataset; returns the store's prefix of its files, to be removed after the commit.

    Raises:
        NotFound: there is no such dataset.
        Conflict: a job that has not finished uses it.
    """
    dataset = session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id!r}; GET /v1/datasets lists those that exist")
    uses = or_(Job.dataset_id == dataset_id, Job.transfer_id == dataset_id)
    user = session.scalar(select(Job.id).where(uses, Job.status.not_in(FINAL)).limit(1))
    if user is not None:
        raise Conflict(f"job {user} uses dataset {dataset_id}; cancel it or wait until it has finished")
    session.delete(dataset)
    return _prefix(dataset_id)


def _store(
    database: Database,
    store: Store,
    new: NewDataset,
    values: dict[str, Any],
    shards: Path,
    samples: Path,
    *,
    keep_original: bool,
) -> tuple[Dataset, bool]:
    dataset_id = new_id("ds")
    prefix = _prefix(dataset_id)
    values |= {
        "id": dataset_id,
        "name": new.name,
        "task": new.task,
        "filename": new.filename,
        "path": f"{prefix}/data" if keep_original else None,
        "sha256": new.sha256,
        "bytes": new.size,
        "input_column": new.input_column,
        "target_column": new.target_column,
    }

    def list_it(session: Session) -> Dataset | None:
        # Somebody may have stored the same bytes since we looked.
        added = session.scalar(insert(Dataset).values(**values).on_conflict_do_nothing().returning(Dataset.id))
        if added is None:
            return _same(session, new)
        list_files(session, prefix)
        return session.get(Dataset, added)

    with unlisted(database, store, prefix):
        values["files"] = [asdict(file) for file in store.put_folder(shards, f"{prefix}/{_SHARDS}")]
        if keep_original:
            store.put(new.path, f"{prefix}/data")
        store.put(samples, f"{prefix}/{_SAMPLES}")
        dataset = database.run(list_it)
    if dataset is None:
        raise Conflict("the same dataset was deleted at this moment; send it again")
    return dataset, dataset.id == dataset_id


def _same(session: Session, new: NewDataset) -> Dataset | None:
    return session.scalar(
        select(Dataset).where(
            Dataset.sha256 == new.sha256,
            Dataset.task == new.task,
            Dataset.input_column == new.input_column,
            Dataset.target_column == new.target_column,
        )
    )


def _lacks_rows(dataset: Dataset) -> bool:
    return any(warning["code"] == "rows_skipped" for warning in dataset.info["warnings"])


def _prefix(dataset_id: str) -> str:
    return f"datasets/{dataset_id}"
