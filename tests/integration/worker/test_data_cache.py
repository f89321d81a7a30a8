"""Data as a host fetches and keeps them: shards of uploads, and what files of this host were converted to."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from sqlalchemy.orm import Session

from service import datasets
from service.database import Database
from service.datasets import NewDataset
from service.errors import NotFound
from service.formats import read_dataset
from service.store import Store, file_sha256
from service.tables import Dataset, User
from tests.access import DirectAccess
from tests.unit.formats.files import assert_same, some_images, write_npz
from tests.unit.worker.preflight.jobs import digits
from worker.host.inputs import InputFetcher
from worker.sources.cache import NetworkCache
from worker.sources.data_files import DataFile, convert
from worker.sources.errors import InvalidData

T = TypeVar("T")
COLUMNS: Any = {"task": "image-classification", "target_columns": ["label"]}
FILE = DataFile("squares.npz", "image-classification", ("image",), ("label",))


@dataclass
class Host:
    """A host with a cache of data, and the store and the database of its service."""

    database: Database
    store: Store
    folder: Path

    def in_database(self, work: Callable[[Session], T]) -> T:
        return self.database.run(work)

    in_store = DirectAccess.in_store
    in_hub = DirectAccess.in_hub

    @property
    def cache(self) -> NetworkCache:
        return NetworkCache(self.folder / "cache", max_bytes=2**20)

    def fetcher(self, source: str, **options: Any) -> InputFetcher:
        document = digits(dataset={"source": source})
        caches: Any = {"cache": self.cache, "data_cache": self.cache}
        return InputFetcher(document, self.folder / "job", access=self, **caches, roots=[self.folder], **options)

    def upload(self, path: Path, *, keep_original: bool = False) -> Dataset:
        sha256, size = file_sha256(path)
        new = NewDataset(path, path.name, sha256=sha256, size=size, name="squares", task="image-classification")
        return datasets.ingest(self.database, self.store, new, owner_id="user_ana", keep_original=keep_original)[0]

    def empty_cache(self) -> None:
        """Removes what nobody holds."""
        with NetworkCache(self.cache.folder, max_bytes=1).hold("another", some_bytes):
            pass

    def entries(self) -> list[Path]:
        return [path for path in self.cache.folder.iterdir() if path.is_dir()]


@pytest.fixture
def host(database: Database, tmp_path: Path) -> Host:
    with database.transaction() as session:
        session.add(User(id="user_ana", name="ana"))
    return Host(database, Store(f"file://{tmp_path}/store"), tmp_path)


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "squares.npz", image=some_images(12, 6, 6), label=np.arange(12) % 3)


def some_bytes(folder: Path) -> None:
    (folder / "bytes").write_bytes(bytes(10))


def test_an_upload_is_fetched_as_shards_once_and_read_without_the_store(host: Host, squares: Path, tmp_path: Path) -> None:
    dataset = host.upload(squares)
    source = f"dataset:{dataset.id}"
    assert (dataset.path, [file["name"] for file in dataset.files or ()]) == (None, ["index.json", "train-00000.parquet"])
    with host.fetcher(source) as fetcher:
        folder = fetcher.fetch().paths[source]
        assert sorted(path.name for path in folder.iterdir()) == ["index.json", "train-00000.arrow"]
        assert_same(read_dataset(folder, **COLUMNS), read_dataset(squares, **COLUMNS))
        host.empty_cache()
        host.store.remove_prefix(f"datasets/{dataset.id}")
        with host.fetcher(source) as again:
            assert again.fetch().paths == {source: folder}
        assert host.entries() == [folder]
    host.empty_cache()
    with host.fetcher(source) as late, pytest.raises(NotFound, match="is not in the store any more"):
        late.fetch()


def test_a_shard_that_arrives_damaged_is_fetched_again_and_what_arrived_is_kept(host: Host, squares: Path) -> None:
    dataset = host.upload(squares)
    index, shard = (host.folder / "store" / file["path"] for file in dataset.files or ())
    whole = {path: path.read_bytes() for path in (index, shard)}

    def damaged(*paths: Path) -> Iterator[None]:
        for path in paths:
            path.write_bytes(whole[path][:-1] + b"?")
        yield
        for path in paths:
            path.write_bytes(whole[path])
        yield

    states = damaged(index)
    with host.fetcher(f"dataset:{dataset.id}", on_poll=lambda: next(states, None)) as fetcher:
        assert_same(read_dataset(fetcher.fetch().paths[f"dataset:{dataset.id}"], **COLUMNS), read_dataset(squares, **COLUMNS))
    host.empty_cache()
    next(damaged(shard))
    with host.fetcher(f"dataset:{dataset.id}") as fetcher, pytest.raises(NotFound, match="its SHA-256 differs"):
        fetcher.fetch()
    assert [path.suffix for path in host.entries()] == [".part"]
    shard.write_bytes(whole[shard])
    index.unlink()
    with host.fetcher(f"dataset:{dataset.id}") as fetcher, pytest.raises(NotFound, match="is not in the store"):
        fetcher.fetch()


def test_what_was_uploaded_before_there_were_shards_is_converted_here(host: Host, squares: Path) -> None:
    dataset = host.upload(squares, keep_original=True)
    with host.database.transaction() as session:
        session.get_one(Dataset, dataset.id).files = None
    host.store.remove_prefix(f"datasets/{dataset.id}/shards")
    source = f"dataset:{dataset.id}"
    with host.fetcher(source) as fetcher:
        assert_same(read_dataset(fetcher.fetch().paths[source], **COLUMNS), read_dataset(squares, **COLUMNS))
    host.store.remove_prefix(f"datasets/{dataset.id}")
    with host.fetcher(source) as again:
        again.fetch()
    assert list((host.folder / "job").rglob("*.*")) == []


def test_a_file_of_this_host_is_converted_anew_once_it_is_written_anew(host: Host, squares: Path) -> None:
    source = f"file:{squares}"
    with host.fetcher(source) as fetcher:
        first = fetcher.fetch().paths[source]
    write_npz(squares, image=some_images(12, 6, 6, seed=1), label=np.arange(12) % 3)
    with host.fetcher(source) as fetcher:
        second = fetcher.fetch().paths[source]
        assert first != second
        assert_same(read_dataset(second, **COLUMNS), read_dataset(squares, **COLUMNS))

    def write_anew() -> None:
        write_npz(squares, image=some_images(12, 6, 6, seed=2), label=np.arange(12) % 3)

    write_npz(squares, image=some_images(12, 6, 6, seed=3), label=np.arange(12) % 3)
    with host.fetcher(source, on_poll=write_anew) as fetcher, pytest.raises(InvalidData, match="changed while it was read"):
        fetcher.fetch()
    squares.write_bytes(b"PK")
    with host.fetcher(source) as fetcher, pytest.raises(InvalidData, match=r"squares\.npz: the npz is broken") as refused:
        fetcher.fetch()
    assert (refused.value.code, refused.value.pointer) == ("invalid_data", "/dataset/source")


def test_two_jobs_at_once_have_one_conversion(host: Host, squares: Path) -> None:
    both = Barrier(2)

    def fetch(_: int) -> tuple[Path, int]:
        both.wait()
        with host.fetcher(f"file:{squares}") as fetcher:
            folder = fetcher.fetch().paths[f"file:{squares}"]
            return folder, (folder / "index.json").stat().st_ino

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(fetch, range(2)))) == 1


def test_a_file_is_converted_in_a_process_of_its_own_that_can_be_ended(squares: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "left").write_text("of an earlier try")
    convert(FILE, squares, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "train-00000.arrow"]
    with pytest.raises(FileNotFoundError):
        convert(FILE, squares, tmp_path / "none")

    def stop() -> None:
        raise InterruptedError

    def kill() -> None:
        for each in psutil.Process().children():
            if "worker.sources.data_files" in each.cmdline():
                each.kill()

    with pytest.raises(InterruptedError):
        convert(FILE, squares, folder, on_poll=stop)
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        convert(FILE, squares, folder, on_poll=kill)
