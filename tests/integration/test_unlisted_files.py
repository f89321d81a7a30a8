"""Files whose commit is in doubt, or broke off: what is listed has its files, what is not leaves none."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from service import datasets
from service.broker import Broker
from service.database import Database
from service.datasets import NewDataset
from service.errors import Unavailable
from service.store import Store
from service.sweeper import Sweeper
from service.tables import Dataset, Model, UnlistedFiles, User
from service.unlisted_files import list_files, note, to_remove, unlisted
from tests.faults.waiting import until


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

    def list_it(session: Session) -> None:
        list_files(session, "models/test")
        session.add(model)

    with unlisted(database, store, "models/test"):
        store.put(source, "models/test/weights")
        database.run(list_it)


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


@pytest.fixture
def days_ago(database: Database, database_url: str) -> Iterator[Database]:
    """The same database, on a clock that is three days slow."""
    with closing(Database(database_url, clock=lambda: datetime.now(UTC) - timedelta(days=3))) as opened:
        yield opened


@pytest.mark.parametrize("prefix", ["datasets/ds_x", "models/model_x", "jobs/job_x"])
def test_what_a_process_left_that_was_killed_is_removed_by_a_sweep_once_nobody_may_list_it(
    database: Database, days_ago: Database, store: Store, source: Path, broker: Broker, prefix: str
) -> None:
    for noting, key in ((days_ago, prefix), (database, f"{prefix}-new")):
        noting.run(partial(note, prefix=key))
        store.put(source, f"{key}/1/file")
    with Sweeper(database, broker, store, interval_seconds=0.05, lease_seconds=45):
        until(lambda: noted(database) == [f"{prefix}-new"], "it is still noted", timeout_seconds=60)
    assert not store.holds_any([f"{prefix}/1/file"])
    assert store.holds_any([f"{prefix}-new/1/file"])


def test_what_cannot_be_removed_keeps_nothing_else(
    database: Database, days_ago: Database, store: Store, source: Path, broker: Broker
) -> None:
    for prefix in ("models/-no-name-", "models/model_x", "jobs/job_x"):
        days_ago.run(partial(note, prefix=prefix))
    store.put(source, "jobs/job_x/1/file")
    with Sweeper(database, broker, store, interval_seconds=0.05, lease_seconds=45):
        until(lambda: noted(database) == ["models/-no-name-"], "they are still noted", timeout_seconds=60)
    assert not store.holds_any(["jobs/job_x/1/file"])


def test_what_is_listed_is_no_more_removed(database: Database, days_ago: Database) -> None:
    days_ago.run(partial(note, prefix="models/test"))
    with days_ago.transaction() as session:
        list_files(session, "models/test")
        assert database.run(to_remove) == [], "not while it is being listed either"
    assert database.run(to_remove) == []


def test_what_a_transaction_lists_that_began_in_time_is_not_removed_while_it_goes_on(
    database: Database, database_url: str
) -> None:
    begun = datetime.now(UTC)
    with closing(Database(database_url, clock=lambda: begun - timedelta(days=2) + timedelta(seconds=1))) as noting:
        noting.run(partial(note, prefix="models/test"))
    with closing(Database(database_url, clock=lambda: begun)) as listing, listing.transaction() as session:
        with closing(Database(database_url, clock=lambda: begun + timedelta(seconds=60))) as sweeping:
            assert sweeping.run(to_remove) == []
        list_files(session, "models/test")


def test_what_is_listed_too_late_leaves_no_row_without_files(database: Database, days_ago: Database) -> None:
    days_ago.run(partial(note, prefix="models/test"))
    with pytest.raises(Unavailable, match="send it again"):
        database.run(partial(list_files, prefix="models/test"))
    assert database.run(to_remove) == ["models/test"]


def test_what_is_deleted_is_noted_until_no_lost_attempt_may_write_it_any_more(database: Database, days_ago: Database) -> None:
    days_ago.run(partial(note, prefix="jobs/test"))
    database.run(partial(note, prefix="jobs/test"))
    assert database.run(to_remove) == []
    assert noted(database) == ["jobs/test"]


def noted(database: Database) -> list[str]:
    return database.run(lambda session: list(session.scalars(select(UnlistedFiles.prefix))))
