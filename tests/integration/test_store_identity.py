"""Which store is the one of a database: set up once, adopted from before, replaced on purpose and never by mistake."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from service import datasets
from service.database import Database
from service.datasets import NewDataset
from service.errors import Conflict
from service.part_errors import PartAway
from service.store import MARKER, Store
from service.store_identity import adopt, look_for, store_of
from service.tables import StoreIdentity, User


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/mount/store"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "mount/store"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_text("x")
    return path


def upload(database: Database, store: Store, folder: Path) -> str:
    """Stores a dataset; returns the key of a file of it."""
    path = folder / "rows.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    with database.transaction() as session:
        session.merge(User(id="user_test", name="ana"))
    new = NewDataset(path, "rows.jsonl", sha256="0", size=path.stat().st_size, name="rows", task="text-classification")
    dataset, _ = datasets.ingest(database, store, new, owner_id="user_test")
    return str((dataset.files or [])[0]["path"])


def recorded(database: Database) -> tuple[str, bool]:
    with database.transaction() as session:
        row = session.get_one(StoreIdentity, True)
        return row.id, row.is_set_up


def forget(database: Database) -> None:
    """As in a database of a version that knew its store by nothing."""
    with database.transaction() as session:
        session.delete(session.get_one(StoreIdentity, True))


def test_a_new_store_is_set_up_once_whoever_comes_first(database: Database, url: str) -> None:
    stores = [store_of(database, url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Store.ping, stores))
    assert recorded(database) == (stores[0].marker(), True)
    for store in stores:
        store.ping()


def test_a_set_up_that_broke_off_is_completed(database: Database, url: str) -> None:
    with database.transaction() as session:
        session.add(StoreIdentity(id="store_begun"))
    store_of(database, url).ping()
    assert recorded(database) == ("store_begun", True)
    assert Store(url).marker() == "store_begun"


def test_a_store_that_was_set_up_is_not_made_again_by_a_process_that_starts_without_it(
    database: Database, url: str, root: Path, text: Path
) -> None:
    store_of(database, url).ping()
    root.rename(root.with_name("away"))
    late = store_of(database, url)
    look_for(late)
    with pytest.raises(PartAway, match="is not there"):
        late.put(text, "a")
    root.mkdir()
    with pytest.raises(PartAway, match=f"it has no file {MARKER}"):
        late.put(text, "a")
    assert list(root.iterdir()) == []
    root.rmdir()
    root.with_name("away").rename(root)
    late.put(text, "a")


def test_a_store_from_before_is_adopted_by_the_files_that_it_holds(
    database: Database, url: str, root: Path, tmp_path: Path, text: Path
) -> None:
    key = upload(database, store_of(database, url), tmp_path)
    (root / MARKER).unlink()
    forget(database)
    root.rename(root.with_name("away"))
    for empty in (False, True):
        if empty:
            root.mkdir()
        with pytest.raises(PartAway, match="none of the newest files that the database names"):
            store_of(database, url).put(text, "a")
    assert list(root.iterdir()) == []
    root.rmdir()
    root.with_name("away").rename(root)
    store = store_of(database, url)
    assert b"".join(store.stream(key)).startswith(b'{"version"')
    store.put(text, "a")
    assert recorded(database) == (store.marker(), True)


def test_a_store_may_move(database: Database, url: str, root: Path, tmp_path: Path, text: Path) -> None:
    store_of(database, url).put(text, "a")
    shutil.copytree(root, tmp_path / "moved")
    moved = store_of(database, f"file://{tmp_path}/moved")
    assert b"".join(moved.stream("a")) == b"x"


def test_another_store_is_taken_on_purpose_alone(database: Database, url: str, tmp_path: Path, text: Path) -> None:
    running = store_of(database, url)
    key = upload(database, running, tmp_path)
    other = f"file://{tmp_path}/other"
    Store(other).put(text, "b")
    with pytest.raises(PartAway, match="says store_"):
        store_of(database, other).ping()
    with pytest.raises(Conflict, match="none of the newest files"):
        adopt(database, other)
    Store(other).put(text, key)
    adopted = adopt(database, other)
    assert (adopted, True) == recorded(database)
    store_of(database, other).ping()
    with pytest.raises(PartAway, match=f"is not the store of this service, {adopted}"):
        store_of(database, url).ping()


def test_an_empty_store_is_taken_where_that_is_said(database: Database, url: str, tmp_path: Path) -> None:
    upload(database, store_of(database, url), tmp_path)
    empty = f"file://{tmp_path}/empty"
    adopt(database, empty, although_files_are_missing=True)
    store_of(database, empty).ping()


def test_a_process_that_runs_follows_an_adoption(database: Database, url: str, root: Path, text: Path) -> None:
    running = store_of(database, url)
    running.ping()
    shutil.rmtree(root)
    with pytest.raises(PartAway):
        running.put(text, "a")
    adopt(database, url)
    running.put(text, "a")


@pytest.fixture
def no_database() -> Iterator[Database]:
    with closing(Database("postgresql://nobody@127.0.0.1:1/none", pool_size=1)) as away:
        yield away


def test_without_the_database_a_store_is_away_and_not_made(no_database: Database, url: str, root: Path) -> None:
    with pytest.raises(PartAway, match="the database does not tell"):
        store_of(no_database, url).ping()
    assert not root.exists()
