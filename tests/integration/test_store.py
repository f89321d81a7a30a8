"""The store in a real folder and behind fsspec's own file systems: whole files, no way out, no harm by others at work."""

import errno
import hashlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from service.errors import NotFound
from service.part_errors import HostDiskFull, PartAway
from service.store import MARKER, Store, StoredFile, file_sha256, media_type, safe_key

CONTENT = bytes(range(256)) * 10_000  # more than two chunks


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A folder, and what takes the way of a bucket."""
    if request.param == "file":
        yield Store(f"file://{tmp_path}/store")
        return
    bucket = f"memory://bucket-{uuid4().hex}"
    yield Store(f"{bucket}/prefix")
    filesystem, root = fsspec.url_to_fs(bucket)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def read(store: Store, key: str) -> bytes:
    return b"".join(store.stream(key))


def in_folder(tmp_path: Path) -> set[str]:
    """What lies in the store's folder beside its marker, folders too."""
    root = tmp_path / "store"
    return {path.relative_to(root).as_posix() for path in root.rglob("*")} - {MARKER}


# ---------------------------------------------------------------- in and out


def test_what_is_put_in_comes_out_with_its_digest(any_store: Store, source: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    stored = any_store.put(source, "jobs/j/1/model.safetensors")
    assert stored == StoredFile(
        name="model.safetensors",
        path="jobs/j/1/model.safetensors",
        size=len(CONTENT),
        sha256=digest,
        media_type="application/octet-stream",
    )
    target = tmp_path / "deep" / "down" / "model"
    any_store.fetch(stored.path, target, sha256=digest)
    assert target.read_bytes() == CONTENT
    assert read(any_store, stored.path) == CONTENT
    assert file_sha256(target) == (digest, len(CONTENT))


def test_a_job_may_call_a_file_otherwise_than_the_store(any_store: Store, source: Path) -> None:
    stored = any_store.put(source, "jobs/j/1/7-checkpoint", name="report.json")
    assert (stored.name, stored.path, stored.media_type) == ("report.json", "jobs/j/1/7-checkpoint", "application/json")


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, None), (5, None), (0, 7), (5, 7), (2**20 - 3, 2**20 + 6), (len(CONTENT) - 2, 100), (len(CONTENT), None), (3, 0)],
)
def test_any_part_of_a_file_can_be_streamed(any_store: Store, source: Path, start: int, length: int | None) -> None:
    any_store.put(source, "a")
    expected = CONTENT[start:] if length is None else CONTENT[start : start + length]
    assert b"".join(any_store.stream("a", start=start, length=length)) == expected


def test_a_folder_goes_in_with_every_file_by_its_path(any_store: Store, tmp_path: Path) -> None:
    for name in ("report.json", "student/config.json", "student/deep/x.txt"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "out" / "empty").mkdir()
    stored = any_store.put_folder(tmp_path / "out", "jobs/j/2")
    assert [(file.name, file.path) for file in stored] == [
        ("report.json", "jobs/j/2/report.json"),
        ("student/config.json", "jobs/j/2/student/config.json"),
        ("student/deep/x.txt", "jobs/j/2/student/deep/x.txt"),
    ]
    assert all(read(any_store, file.path) == file.name.encode() for file in stored)


def test_another_attempts_file_of_the_same_key_takes_the_place_of_the_first(any_store: Store, source: Path) -> None:
    any_store.put(source, "a/b")
    source.write_bytes(b"second")
    any_store.put(source, "a/b")
    assert read(any_store, "a/b") == b"second"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.safetensors", "application/octet-stream"),
        ("README.md", "text/markdown; charset=utf-8"),
        ("report.html", "text/html; charset=utf-8"),
        ("log.txt", "text/plain; charset=utf-8"),
        ("report.json", "application/json"),
        ("x.png", "image/png"),
        ("x.unheard-of", "application/octet-stream"),
        ("x", "application/octet-stream"),
    ],
)
def test_a_media_type_is_told_by_the_ending(name: str, expected: str) -> None:
    assert media_type(name) == expected


# ---------------------------------------------------------------- what is not there, or not as it was


def test_what_is_not_there_is_told_before_the_first_byte(any_store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="none/at/all"):
        any_store.stream("none/at/all")
    with pytest.raises(NotFound, match="none/at/all"):
        any_store.fetch("none/at/all", tmp_path / "target")
    assert list(tmp_path.glob("target*")) == []


def test_a_file_that_is_not_what_was_recorded_is_not_handed_out(any_store: Store, source: Path, tmp_path: Path) -> None:
    any_store.put(source, "a")
    with pytest.raises(NotFound, match="SHA-256 differs"):
        any_store.fetch("a", tmp_path / "target", sha256="0" * 64)
    assert list(tmp_path.glob("target*")) == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a/./b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a b", "a\n",
     MARKER, "ä", "a\0", "~", "-rf", "*", "x" * 202],
)  # fmt: skip
def test_a_key_that_is_no_plain_path_is_refused_by_everything(any_store: Store, source: Path, tmp_path: Path, key: str) -> None:
    everything: list[Callable[[], object]] = [
        lambda: any_store.put(source, key),
        lambda: any_store.fetch(key, tmp_path / "target"),
        lambda: any_store.stream(key),
        lambda: safe_key(key),
        lambda: any_store.remove([key]),
        lambda: any_store.remove_prefix(key),
    ]
    for refused in everything:
        with pytest.raises(NotFound, match=re.escape(repr(key))):
            refused()


def test_a_key_of_plain_names_is_taken_as_it_is() -> None:
    key = "jobs/job_01k5/1/student-7_best.v2@x+y.safetensors"
    assert safe_key(key) == key


# ---------------------------------------------------------------- whole or not there


def test_a_reader_sees_one_whole_file_or_the_other(store: Store, tmp_path: Path) -> None:
    contents = [bytes([number]) * (2**20 + number) for number in range(4)]
    for number, content in enumerate(contents):
        (tmp_path / f"source-{number}").write_bytes(content)
    store.put(tmp_path / "source-0", "a")

    def put(number: int) -> None:
        for _ in range(10):
            store.put(tmp_path / f"source-{number}", "a")

    with ThreadPoolExecutor(4) as pool:
        puts = [pool.submit(put, number) for number in range(4)]
        while not all(done.done() for done in puts):
            assert read(store, "a") in contents
    for done in puts:
        done.result()
    assert in_folder(tmp_path) == {"a"}


FULL_DISK = """
import resource, sys
from pathlib import Path
from service.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
try:
    Store(sys.argv[1]).put(Path(sys.argv[2]), "jobs/j/1/a")
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_copy_that_fails_halfway_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """The system refuses this process files of more than 1.5 MB, as it refuses them on a full disk."""
    command = [sys.executable, "-c", FULL_DISK, f"file://{tmp_path}/store", str(source)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"OSError {errno.EFBIG}"
    assert [name for name in in_folder(tmp_path) if (tmp_path / "store" / name).is_file()] == []


# ---------------------------------------------------------------- removing


def test_removed_files_are_gone_and_others_stay(any_store: Store, source: Path) -> None:
    for key in ("jobs/j/1/a", "jobs/j/1/b", "jobs/k/1/a"):
        any_store.put(source, key)
    any_store.remove(["jobs/j/1/a", "jobs/k/1/a"])
    for key in ("jobs/j/1/a", "jobs/k/1/a"):
        with pytest.raises(NotFound):
            any_store.stream(key)
    assert read(any_store, "jobs/j/1/b") == CONTENT


def test_removing_what_is_gone_is_no_error(any_store: Store, source: Path) -> None:
    any_store.put(source, "jobs/j/1/a")
    for _ in range(2):
        any_store.remove(["jobs/j/1/a", "never/there"])
    for _ in range(2):
        any_store.remove_prefix("jobs/j")


def test_a_prefix_is_removed_with_everything_under_it_and_nothing_beside_it(any_store: Store, source: Path) -> None:
    for key in ("models/m1/a", "models/m1/b/c", "models/m10/a"):
        any_store.put(source, key)
    any_store.remove_prefix("models/m1")
    for key in ("models/m1/a", "models/m1/b/c"):
        with pytest.raises(NotFound):
            any_store.stream(key)
    assert read(any_store, "models/m10/a") == CONTENT


def test_folders_go_with_their_last_file(store: Store, source: Path, tmp_path: Path) -> None:
    for key in ("jobs/j/1/a", "jobs/j/2/b/c"):
        store.put(source, key)
    store.remove(["jobs/j/2/b/c"])
    assert in_folder(tmp_path) == {"jobs", "jobs/j", "jobs/j/1", "jobs/j/1/a"}
    store.remove(["jobs/j/1/a"])
    assert in_folder(tmp_path) == set()
    store.ping()


def test_puts_and_removals_under_one_folder_do_not_meet(store: Store, tmp_path: Path) -> None:
    """Each thread's removal finds the shared folders empty again and again, just when another has made them to put a file in."""
    source = tmp_path / "small"
    source.write_bytes(b"x")
    num_threads = 4
    barrier = threading.Barrier(num_threads)

    def put_and_remove(thread: int) -> None:
        barrier.wait(60)
        for number in range(150):
            key = f"jobs/shared/1/{thread}-{number}"
            store.put(source, key)
            assert read(store, key) == b"x"
            store.remove([key])

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(put_and_remove, range(num_threads)))
    assert in_folder(tmp_path) == set()


# ---------------------------------------------------------------- the store itself


def test_a_store_answers_before_and_after_its_first_file(any_store: Store, source: Path) -> None:
    any_store.ping()
    any_store.put(source, "a")
    any_store.ping()


def test_a_store_that_is_away_is_told_by_everything_and_never_made_anew(store: Store, source: Path, tmp_path: Path) -> None:
    store.put(source, "a/b")
    root, away = tmp_path / "store", tmp_path / "away"
    everything: list[Callable[[], object]] = [
        lambda: store.put(source, "c"),
        lambda: store.fetch("a/b", tmp_path / "target"),
        lambda: store.stream("a/b"),
        lambda: store.stream("never/there"),
        lambda: store.remove(["a/b"]),
        lambda: store.remove_prefix("a"),
        store.ping,
    ]

    def assert_away(words: str) -> None:
        for refused in everything:
            with pytest.raises(PartAway, match=words):
                refused()

    root.rename(away)
    assert_away("is not there")
    assert not root.exists()
    root.mkdir()  # as an empty mount point is
    assert_away(f"it has no file {MARKER}")
    assert list(root.iterdir()) == []
    other = Store(store.url)
    other.put(source, "a/b")
    with pytest.raises(PartAway, match=f"its file {MARKER} says {other.marker()}"):
        store.put(source, "c")
    shutil.rmtree(root)
    root.write_text("no folder")
    assert_away("is not there")
    root.unlink()
    away.rename(root)
    assert read(store, "a/b") == CONTENT
    store.put(source, "c")
    assert in_folder(tmp_path) == {"a", "a/b", "c"}


def test_what_is_written_goes_to_the_store_whose_marker_was_read(store: Store, tmp_path: Path) -> None:
    """The mount drops in the middle of the copy: the file ends in what is mounted no more, and nothing in its place."""
    source, root = tmp_path / "large", tmp_path / "store"
    with source.open("wb") as file:
        file.truncate(2**27)
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(store.put, source, "a/b")
        while not list(root.glob("a/*")):
            assert not putting.done()
        root.rename(tmp_path / "dropped")
        root.mkdir()
        putting.result()
    assert list(root.iterdir()) == []
    assert (tmp_path / "dropped/a/b").stat().st_size == 2**27


def test_a_bucket_is_known_by_its_marker_too(source: Path) -> None:
    url = f"memory://bucket-{uuid4().hex}/prefix"
    store = Store(url)
    store.put(source, "a")
    filesystem, root = fsspec.url_to_fs(url)
    filesystem.rm_file(f"{root}/{MARKER}")
    with pytest.raises(PartAway, match=f"it has no file {MARKER}"):
        store.ping()
    with pytest.raises(PartAway):
        store.stream("never/there")
    assert read(store, "a") == CONTENT
    assert store.marker() is None
    store.mark("store_another")
    with pytest.raises(PartAway, match=f"its file {MARKER} says store_another"):
        store.ping()


def test_a_host_without_room_is_told_from_a_store_that_is_away(any_store: Store, source: Path, tmp_path: Path) -> None:
    any_store.put(source, "a")
    target = tmp_path / "scratch/a"
    target.parent.mkdir()
    target.with_name("a.partial").symlink_to("/dev/full")
    with pytest.raises(HostDiskFull, match="scratch takes no file: No space left"):
        any_store.fetch("a", target)
    assert not target.exists()


def test_a_store_that_signs_no_addresses_has_none(any_store: Store, source: Path) -> None:
    any_store.put(source, "a")
    assert any_store.signed_url("a") is None


def test_the_stores_folder_is_made_with_those_above_it(tmp_path: Path, source: Path) -> None:
    store = Store(f"file://{tmp_path}/not/there/yet/")
    store.put(source, "a")
    assert (tmp_path / "not/there/yet/a").read_bytes() == CONTENT


def test_of_a_prefix_all_is_removed_but_what_is_kept(any_store: Store, source: Path) -> None:
    keys = ("jobs/1/1/lost", "jobs/1/2/student/kept", "jobs/1/2/lost", "jobs/11/1/other")
    for key in keys:
        any_store.put(source, key)
    any_store.remove_others("jobs/1", {"jobs/1/2/student/kept"})
    any_store.remove_others("jobs/of-which-nothing-is-there", ())
    held = [key for key in keys if any_store.holds_any([key])]
    assert held == ["jobs/1/2/student/kept", "jobs/11/1/other"]
