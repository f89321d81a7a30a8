"""Uploads whose commit is in doubt: what is listed has its files, what is not leaves none."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from service import datasets
from service.database import Database
from service.datasets import NewDataset
from service.kept_files import kept_if_listed
from service.store import Store
from service.tables import Dataset, Model, User


class LosesAnswers(Database):
    """The answers of its commits of new rows do not arrive."""

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with super().transaction() as session:
            yield session
            is_new = any(isinstance(each, Dataset | Model) for each in session.identity_map.values())
        if is_new and self.loses:
            self.loses = False
            raise OperationalError("COMMIT", {}, ConnectionResetError())

    loses = True


@pytest.fixture
def losing(database: Database, database_url: str) -> Iterator[Database]:
    with database.transaction() as session:
        session.add(User(id="user_test", name="ana"))
    with closing(LosesAnswers(database_url)) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    return path


def store_model(database: Database, store: Store, source: Path, *, owner_id: str) -> None:
    model = Model(id="model_test", owner_id=owner_id, name="net", task="causal-lm", classes=[], input_shape=[], files=[])
    with kept_if_listed(database, store, "models/test", Model, model.id):
        store.put(source, "models/test/weights")
        database.run(lambda session: session.add(model))


def test_a_dataset_that_was_committed_without_an_answer_has_its_files(losing: Database, store: Store, source: Path) -> None:
    new = NewDataset(source, "rows.jsonl", sha256="0", size=1, name="rows", task="text-classification")
    with pytest.raises(OperationalError):
        datasets.ingest(losing, store, new, owner_id="user_test")
    dataset, is_new = datasets.ingest(losing, store, new, owner_id="user_test")
    assert not is_new
    assert len(datasets.samples(store, dataset)) == 2


def test_a_model_that_was_committed_without_an_answer_has_its_files(losing: Database, store: Store, source: Path) -> None:
    with pytest.raises(OperationalError):
        store_model(losing, store, source, owner_id="user_test")
    assert store.holds_any(["models/test/weights"])


def test_what_was_not_listed_leaves_no_file(database: Database, store: Store, source: Path) -> None:
    with pytest.raises(IntegrityError):
        store_model(database, store, source, owner_id="user_none")
    assert not store.holds_any(["models/test/weights"])
