"""The cache of networks on a host: fetched once by many processes, limited, and never without what somebody reads."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from safetensors import SafetensorError
from sqlalchemy.orm import Session

from service.database import Database
from service.store import Store
from service.tables import Model, User
from tests.access import DirectAccess
from tests.hub import hub_server
from tests.integration.worker.conftest import until
from tests.unit.worker.preflight.jobs import digits
from worker.errors import StopAsked
from worker.host.inputs import InputFetcher
from worker.protocol import StopRequest
from worker.sources import cache as cache_module
from worker.sources.cache import NetworkCache
from worker.sources.download import download
from worker.sources.errors import HubAway, SourceRefused

T = TypeVar("T")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOLDER = """
import sys, time
from pathlib import Path
from worker.sources.cache import NetworkCache

folder, begun, go = map(Path, sys.argv[1:])

def fetch(part):
    with begun.open("a") as file:
        file.write("fetched ")
    while not go.exists():
        time.sleep(0.01)
    (part / "weights").write_bytes(bytes(100))

with NetworkCache(folder, max_bytes=150).hold("one", fetch) as entry:
    print((entry / "weights").stat().st_size, flush=True)
    sys.stdin.read()
"""


class Holder:
    """A process that holds the entry ``one`` until its input ends; it fetches once ``go`` is there."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.go = folder / "begun", folder / "go"
        command = [sys.executable, "-c", HOLDER, str(folder / "cache"), str(self.begun), str(self.go)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def until_it_holds(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()


def writes(content: bytes) -> Callable[[Path], None]:
    def fetch(part: Path) -> None:
        (part / "weights").write_bytes(content)

    return fetch


def unfetched(part: Path) -> None:
    raise AssertionError("it is there already")


def kept(folder: Path) -> int:
    return sum(path.is_dir() for path in folder.iterdir())


def test_two_processes_that_want_one_network_fetch_it_once(tmp_path: Path) -> None:
    with Holder(tmp_path) as first, Holder(tmp_path) as second:
        until(first.begun.exists)
        first.go.touch()
        assert [first.until_it_holds(), second.until_it_holds()] == ["100", "100"]
        assert first.begun.read_text() == "fetched "


def test_who_waits_for_another_can_be_ended(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache", max_bytes=150)
    with Holder(tmp_path) as other:
        until(other.begun.exists)

        def leave() -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError), cache.hold("one", unfetched, on_wait=leave):
            pass
        other.go.touch()
        other.until_it_holds()


def test_what_is_held_stays_and_goes_once_its_holder_was_killed(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache", max_bytes=150)
    with Holder(tmp_path) as holder:
        holder.go.touch()
        holder.until_it_holds()
        with cache.hold("another", writes(bytes(100))):
            assert kept(cache.folder) == 2
        with cache.hold("one", unfetched):
            pass
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait()
    with cache.hold("a third", writes(bytes(100))), cache.hold("a third", unfetched):
        assert kept(cache.folder) == 1


def test_the_least_recently_used_goes_first_and_one_that_is_too_large_before_all(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache", max_bytes=250)
    for key in ("old", "new", "old"):
        with cache.hold(key, writes(bytes(100))):
            pass
        time.sleep(0.01)  # between the times of two uses, by the clock of the disk
    with cache.hold("huge", writes(bytes(300)), num_bytes=300) as huge:
        assert (huge / "weights").stat().st_size == 300
    for key in ("old", "new"):
        with cache.hold(key, unfetched):
            pass
        time.sleep(0.01)
    with cache.hold("third", writes(bytes(100)), num_bytes=100), cache.hold("new", unfetched):
        pass
    with pytest.raises(AssertionError), cache.hold("old", unfetched):
        pass


def test_a_fetch_that_broke_off_goes_on_and_is_never_read(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache", max_bytes=1000)

    def half(part: Path) -> None:
        (part / "weights-1").write_bytes(b"1")
        raise ConnectionResetError

    def rest(part: Path) -> None:
        assert (part / "weights-1").read_bytes() == b"1"
        (part / "weights-2").write_bytes(b"2")

    with pytest.raises(ConnectionResetError), cache.hold("one", half):
        pass
    with cache.hold("one", rest) as entry:
        assert sorted(path.name for path in entry.iterdir()) == ["weights-1", "weights-2"]


def of_the_library(number: int) -> Exception:
    error = ValueError("this network cannot be saved")
    error.__cause__ = SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
    return error


@pytest.mark.parametrize(
    "full",
    [OSError(errno.ENOSPC, "No space left"), of_the_library(errno.ENOSPC), of_the_library(errno.EDQUOT)],
    ids=["file", "library", "quota"],
)
def test_a_full_disk_is_given_the_room_of_what_nobody_reads(full: Exception, tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache", max_bytes=1000)
    with cache.hold("held", writes(b"1")), cache.hold("free", writes(b"2")) as free:
        pass

    def fetch(part: Path) -> None:
        if free.exists():
            raise full
        (part / "weights").write_bytes(b"3")

    with cache.hold("new", fetch) as new:
        assert (new / "weights").read_bytes() == b"3"
    with pytest.raises(OSError, match="No space"), cache.hold("other", writes_nothing):
        pass


def writes_nothing(part: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_download_can_be_ended_and_a_file_that_arrives_damaged_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "config.json").write_text("{}")
    (tmp_path / "given" / "model.safetensors").write_bytes(os.urandom(1000))
    (tmp_path / "given" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with hub_server() as hub:
        hub.add("anna/digits", tmp_path / "given", commit=COMMIT)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        cache = NetworkCache(tmp_path / "cache", max_bytes=2000)

        def hold(on_poll: Callable[[], None] = lambda: None) -> list[str]:
            def fetch(part: Path) -> None:
                download("hub:anna/digits", part, commit=COMMIT, token=None, on_poll=on_poll)

            with cache.hold("digits", fetch) as entry:
                assert (entry / "model.safetensors").read_bytes() == (tmp_path / "given" / "model.safetensors").read_bytes()
                return sorted(path.name for path in entry.rglob("*"))

        def leave() -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            hold(leave)
        hub.damaged.add("model.safetensors")
        with pytest.raises(HubAway, match="arrived damaged"):
            hold()
        hub.damaged.clear()
        assert hold() == ["config.json", "model.safetensors"]
        assert hub.downloads().count("config.json") == 1
        hub.is_down = True
        assert hold() == ["config.json", "model.safetensors"]
        hub.is_down = False
        with pytest.raises(SourceRefused, match="there is no repository"):
            download("hub:anna/none", tmp_path, commit=COMMIT, token=None, on_poll=lambda: None)


@pytest.mark.parametrize(("files", "fetched"), [(["a.gguf"], ["a.gguf"]), (["a.gguf", "b.gguf"], [])])
def test_a_gguf_file_is_fetched_where_it_is_the_only_one(
    files: list[str], fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given").mkdir()
    for name in [*files, "README.md"]:
        (tmp_path / "given" / name).write_bytes(os.urandom(200))
    with hub_server() as hub:
        hub.add("anna/words", tmp_path / "given", commit=COMMIT)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        (tmp_path / "into").mkdir()
        download("hub:anna/words", tmp_path / "into", commit=COMMIT, token=None, on_poll=lambda: None)
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == ["README.md", *fetched]


def test_an_entry_that_another_removes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "sync", lambda path: None)  # which is slow, and not the matter here

    def fetch(part: Path) -> None:
        for number in range(20):
            (part / str(number)).mkdir(exist_ok=True)
            (part / str(number) / "weights").write_bytes(bytes(100))

    def holds(worker: int) -> None:
        cache = NetworkCache(tmp_path, max_bytes=3000)
        for number in range(40):
            with cache.hold(f"{worker} {number}", fetch) as entry:
                assert len(list(entry.rglob("weights"))) == 20

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(holds, range(4)))


def test_what_ends_a_job_ends_its_fetch_of_a_stored_network_after_the_next_file(database: Database, tmp_path: Path) -> None:
    store, files = Store(f"file://{tmp_path}/store"), []
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
        files.append(asdict(store.put(tmp_path / name, f"models/{name}", name=name)))
    with database.transaction() as session:
        session.add(User(id="user_ana", name="ana"))
        session.flush()
        session.add(Model(id="model_1", owner_id="user_ana", name="", task="", classes=[], input_shape=[], files=files))
    polls = iter([None, StopAsked(StopRequest("pause"))])

    def on_poll() -> None:
        if (stop := next(polls, None)) is not None:
            raise stop

    @dataclass
    class Access(DirectAccess):
        def in_database(self, work: Callable[[Session], T]) -> T:
            return database.run(work)

    access, cache = Access(store), NetworkCache(tmp_path / "cache", max_bytes=1000)
    document = digits(teacher={"source": "model:model_1"})
    with InputFetcher(document, tmp_path, access=access, cache=cache, data_cache=cache, roots=[], on_poll=on_poll) as fetcher:
        with pytest.raises(StopAsked):
            fetcher.fetch()
        assert [path.name for path in cache.folder.rglob("*st")] == ["first"]
        folder = fetcher.fetch().paths["model:model_1"]
        assert sorted(path.read_text() for path in folder.iterdir()) == ["first", "second"]
