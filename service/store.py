"""The store of files of jobs, datasets and models: a folder (``file:///path``) or a bucket (``s3://bucket/prefix``), by fsspec.

A key is a relative path of plain names. No file is overwritten in place, and a file is complete before its key exists. The
database decides which files are visible: they are written under the prefix of an attempt, and a commit makes them visible.

A store is known by the id in its marker, written once when it is set up. Without it the store is away (``PartAway``): a mount
that dropped, an empty mount point, another store. Then nothing is written or removed, and no file is said to be gone.
"""

import hashlib
import mimetypes
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from service.error_numbers import FULL_NUMBERS
from service.errors import NotFound, StillhouseError
from service.ids import new_id
from service.part_errors import HostDiskFull, PartAway

_CHUNK_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,200}")
_MEDIA_TYPES = {
    ".safetensors": "application/octet-stream",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
}
SIGNED_SECONDS = 3600
MARKER = "stillhouse-store"
"""The file at the root of a store that says which one it is. No key has this name."""
_MARKER_TEXT = "{id}\nThis is the store of a Stillhouse service, which knows it by this id. The file goes where the store goes.\n"
_BUCKET_SECONDS = 60.0
"""A bucket is no mount that may drop: its marker is read so often and no more."""
_FOLDER_TRIES = 100


@dataclass(frozen=True)
class StoredFile:
    """A file whose bytes are in the store, to be made visible by a commit."""

    name: str
    path: str
    size: int
    sha256: str
    media_type: str


def safe_key(key: str) -> str:
    """Returns the key, unchanged. Raises NotFound if it leads out of the store or contains other characters than allowed."""
    parts = key.split("/")
    if parts[0] == MARKER or not all(_NAME.fullmatch(part) for part in parts):
        raise NotFound(f"there is no file {key!r}: a name holds letters, digits, '.', '_', '-', and no '..' or empty part")
    return key


def media_type(name: str) -> str:
    """The media type of a file, by its suffix."""
    suffix = PurePosixPath(name).suffix
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Store:
    """The store at one URL. ``id_of`` returns the id that it must have, and may set it up; by default it is the first one seen.

    Every method that reads or writes files raises ``PartAway`` if it is away, and OSError if it fails otherwise.
    """

    def __init__(self, url: str, *, id_of: "Callable[[Store], str] | None" = None) -> None:
        self.url = url
        self._filesystem, root = fsspec.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in self._filesystem.protocol
        self._id_of = id_of
        self._id: str | None = None
        self._new_id = new_id("store")
        """Of whoever sets it up: threads that do so at one time write the same."""
        self._verified_at = float("-inf")

    def put(self, source: Path, key: str, *, name: str | None = None) -> StoredFile:
        """Stores a file atomically. ``name`` is its name within its job; by default the last part of the key."""
        digest, size = file_sha256(source)
        target = self._path(key)
        with source.open("rb") as reader, self._verified() as root:
            if root is None:
                self._filesystem.put_file(str(source), target)
            else:
                _place(root, key, lambda writer: shutil.copyfileobj(reader, writer, _CHUNK_BYTES))
        name = name or key.rpartition("/")[2]
        return StoredFile(name=name, path=key, size=size, sha256=digest, media_type=media_type(name))

    def put_folder(self, source: Path, prefix: str) -> list[StoredFile]:
        """Stores every file of a folder; its name is its path in the folder."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        names = [path.relative_to(source).as_posix() for path in files]
        return [self.put(path, f"{prefix}/{name}", name=name) for path, name in zip(files, names, strict=True)]

    def fetch(self, key: str, target: Path, *, sha256: str | None = None) -> None:
        """Copies a file to ``target``.

        Raises:
            NotFound: it is gone, or has another SHA-256 than recorded.
            HostDiskFull: there is no room for it on this host.
        """
        partial = target.with_name(target.name + ".partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._telling_what_is_missing(key) as path:
                self._filesystem.get_file(path, str(partial))
        except OSError as error:
            if error.errno in FULL_NUMBERS:  # which no reading of the store ends in
                raise HostDiskFull(f"{target.parent} takes no file: {error.strerror}") from error
            raise
        if sha256 is not None and file_sha256(partial)[0] != sha256:
            partial.unlink()
            raise NotFound(f"{key} in the store is not what was recorded: its SHA-256 differs")
        partial.replace(target)

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yields the bytes of a file from ``start``, in chunks. Raises NotFound at once, not at the first chunk."""
        with self._telling_what_is_missing(key) as path:
            file = self._filesystem.open(path, "rb")
        return _chunks(file, start, length)

    def signed_url(self, key: str) -> str | None:
        """A URL at which the file can be read for an hour; None if the store has no such URLs, as a folder."""
        if self._local:
            return None
        try:
            return str(self._filesystem.sign(self._path(key), expiration=SIGNED_SECONDS))
        except NotImplementedError:
            return None

    def remove(self, keys: Iterable[str]) -> None:
        """Removes files; missing ones are ignored."""
        paths = [self._path(key) for key in keys]
        with self._verified():
            self._remove(paths)

    def remove_others(self, prefix: str, kept: Collection[str]) -> None:
        """Removes all files under a prefix but those with the keys ``kept``, half-written ones too."""
        path, keep = self._path(prefix), {self._path(key) for key in kept}
        with self._verified():
            self._remove(found for found in self._filesystem.find(path) if found not in keep)

    def remove_prefix(self, prefix: str) -> None:
        """Removes all files under a prefix, also if somebody else is removing them at this moment."""
        path = self._path(prefix)
        with self._verified():
            for _ in range(_FOLDER_TRIES):
                try:
                    self._filesystem.rm(path, recursive=True)
                except FileNotFoundError:
                    if self._filesystem.exists(path):
                        continue
                return

    def ping(self) -> None:
        """Raises PartAway or another OSError if the store cannot be used."""
        self._verified_at = float("-inf")
        with self._verified():
            pass

    def marker(self) -> str | None:
        """The id in the marker, whichever store this is; None without a marker."""
        if self._local:
            try:
                with _opened(self._root) as root:
                    return _marker_in(root)
            except (FileNotFoundError, NotADirectoryError):
                return None
        with self._errors_of_library():
            try:
                return _id_in(self._filesystem.cat_file(f"{self._root}/{MARKER}"))
            except FileNotFoundError:
                return None

    def mark(self, store_id: str) -> None:
        """Makes this the store of that id. Nothing else makes the root of a store."""
        text = _MARKER_TEXT.format(id=store_id).encode()
        if not self._local:
            with self._errors_of_library():
                self._filesystem.pipe_file(f"{self._root}/{MARKER}", text)
            return
        Path(self._root).mkdir(parents=True, exist_ok=True)
        with _opened(self._root) as root:
            _place(root, MARKER, lambda file: file.write(text))

    def holds_any(self, keys: Iterable[str]) -> bool:
        """Whether one of the files is there, whichever store this is."""
        with self._errors_of_library():
            return any(self._filesystem.exists(self._path(key)) for key in keys)

    def _path(self, key: str) -> str:
        return f"{self._root}/{safe_key(key)}"

    @contextmanager
    def _telling_what_is_missing(self, key: str) -> Iterator[str]:
        path = self._path(key)
        try:
            with self._errors_of_library():
                yield path
        except (FileNotFoundError, NotADirectoryError) as error:
            self.ping()  # raises another error if the whole store is away
            raise NotFound(f"{key} is not in the store any more") from error

    @contextmanager
    def _verified(self) -> Iterator[int | None]:
        """Yields a descriptor of the root that the marker was read in: what is written by it goes nowhere else.

        A bucket has none. Raises PartAway if there is another marker than there must be, or none.
        """
        self._id = self._id or self._expected_id()
        if not self._local:
            if time.monotonic() - self._verified_at > _BUCKET_SECONDS:
                self._require(self.marker())
                self._verified_at = time.monotonic()
            with self._errors_of_library():
                yield None
            return
        try:
            with _opened(self._root) as root:
                self._require(_marker_in(root))
                yield root
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PartAway(f"{self.url} is not there") from error

    def _require(self, found: str | None) -> None:
        if found != self._id:
            self._id = self._expected_id()  # another may have been adopted meanwhile
        if found != self._id:
            has = f"its file {MARKER} says {found}" if found else f"it has no file {MARKER}"
            raise PartAway(f"{self.url} is not the store of this service, {self._id}: {has}")

    def _expected_id(self) -> str:
        if self._id_of is not None:
            return self._id_of(self)
        found = self._id or self.marker()
        if found is None:
            found = self._new_id
            self.mark(found)
        return found

    @contextmanager
    def _errors_of_library(self) -> Iterator[None]:
        """The library of a bucket has errors of its own."""
        try:
            yield
        except (OSError, StillhouseError):
            raise
        except Exception as error:
            raise PartAway(f"{self.url} does not answer: {error}") from error

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self._local:
                Path(path).unlink(missing_ok=True)
                self._remove_empty_folders(Path(path).parent)
            else:
                with suppress(FileNotFoundError):
                    self._filesystem.rm_file(path)

    def _remove_empty_folders(self, folder: Path) -> None:
        with suppress(OSError):  # rmdir checks atomically that it is empty; others may be writing here
            while str(folder) != self._root:
                folder.rmdir()
                folder = folder.parent


def file_sha256(path: Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a local file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


@contextmanager
def _opened(folder: str, *, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _marker_in(root: int) -> str | None:
    try:
        with os.fdopen(os.open(MARKER, os.O_RDONLY, dir_fd=root), "rb") as file:
            return _id_in(file.read(_CHUNK_BYTES))
    except FileNotFoundError:
        return None


def _id_in(marker: bytes) -> str:
    return marker.decode(errors="replace").partition("\n")[0].strip()


def _place(root: int, key: str, write: Callable[[IO[bytes]], object]) -> None:
    """Makes a file whole or not at all; once it has its name it has it after a loss of power too."""
    *folders, name = key.split("/")
    partial = f".{secrets.token_hex(8)}.partial"
    folder, writer = _create(root, folders, partial)
    try:
        with writer:
            write(writer)
            writer.flush()
            os.fsync(writer.fileno())
        os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        with suppress(OSError):  # the name is taken by now, or the disk is away
            os.unlink(partial, dir_fd=folder)
        os.close(folder)


def _create(root: int, folders: list[str], name: str) -> tuple[int, IO[bytes]]:
    """Creates a file and its folders; returns its folder too. Tries again if a concurrent removal deleted an empty folder."""
    for tries_left in reversed(range(_FOLDER_TRIES)):
        folder = os.dup(root)
        try:
            for part in folders:
                inner = _open_or_make(part, within=folder)
                os.close(folder)
                folder = inner
            return folder, os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder), "wb")
        except FileNotFoundError:
            os.close(folder)
            if not tries_left:
                raise
        except OSError:
            os.close(folder)
            raise
    raise AssertionError("the last try returns or raises")


def _open_or_make(folder: str, *, within: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(folder, dir_fd=within)
        os.fsync(within)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=within)


def _chunks(file: IO[bytes] | Any, start: int, length: int | None) -> Iterator[bytes]:
    with file:
        file.seek(start)
        remaining = length
        while remaining is None or remaining > 0:
            chunk = file.read(_CHUNK_BYTES if remaining is None else min(_CHUNK_BYTES, remaining))
            if not chunk:
                return
            if remaining is not None:
                remaining -= len(chunk)
            yield chunk
