"""The store of files of jobs, datasets and models: a folder (``file:///path``) or a bucket (``s3://bucket/prefix``), by fsspec.

A key is a relative path of plain names. No file is overwritten in place, and a file is complete before its key exists. The
database decides which files are visible: they are written under the prefix of an attempt, and a commit makes them visible.
"""

import hashlib
import mimetypes
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from service.errors import NotFound

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
    if not all(_NAME.fullmatch(part) for part in parts):
        raise NotFound(f"there is no file {key!r}: a name holds letters, digits, '.', '_', '-', and no '..' or empty part")
    return key


def media_type(name: str) -> str:
    """The media type of a file, by its suffix."""
    suffix = PurePosixPath(name).suffix
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Store:
    """The store at one URL."""

    def __init__(self, url: str) -> None:
        self._filesystem, root = fsspec.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in self._filesystem.protocol
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def put(self, source: Path, key: str, *, name: str | None = None) -> StoredFile:
        """Stores a file atomically. ``name`` is its name within its job; by default the last part of the key."""
        digest, size = file_sha256(source)
        target = self._path(key)
        if self._local:
            _copy_synced(source, Path(target))
        else:
            self._filesystem.put_file(str(source), target)
        name = name or key.rpartition("/")[2]
        return StoredFile(name=name, path=key, size=size, sha256=digest, media_type=media_type(name))

    def put_folder(self, source: Path, prefix: str) -> list[StoredFile]:
        """Stores every file of a folder; its name is its path in the folder."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        names = [path.relative_to(source).as_posix() for path in files]
        return [self.put(path, f"{prefix}/{name}", name=name) for path, name in zip(files, names, strict=True)]

    def fetch(self, key: str, target: Path, *, sha256: str | None = None) -> None:
        """Copies a file to ``target``. Raises NotFound if it is gone or has another SHA-256 than recorded."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        try:
            self._filesystem.get_file(self._path(key), str(partial))
        except FileNotFoundError as error:
            self.ping()  # raises another error if the whole store is unavailable
            raise NotFound(f"{key} is not in the store any more") from error
        if sha256 is not None and file_sha256(partial)[0] != sha256:
            partial.unlink()
            raise NotFound(f"{key} in the store is not what was recorded: its SHA-256 differs")
        partial.replace(target)

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yields the bytes of a file from ``start``, in chunks. Raises NotFound at once, not at the first chunk."""
        try:
            file = self._filesystem.open(self._path(key), "rb")
        except FileNotFoundError as error:
            raise NotFound(f"{key} is not in the store any more") from error
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
        for key in keys:
            path = self._path(key)
            if self._local:
                Path(path).unlink(missing_ok=True)
                self._remove_empty_folders(Path(path).parent)
            else:
                with suppress(FileNotFoundError):
                    self._filesystem.rm_file(path)

    def remove_prefix(self, prefix: str) -> None:
        """Removes all files under a prefix."""
        with suppress(FileNotFoundError):
            self._filesystem.rm(self._path(prefix), recursive=True)

    def ping(self) -> None:
        """Raises OSError if the store cannot be reached."""
        try:
            self._filesystem.ls(self._root, refresh=True)  # else the listing of a bucket would be served from the cache for ever
        except FileNotFoundError:
            # In a bucket a prefix does not exist before its first file.
            if self._local or not self._filesystem.exists(PurePosixPath(self._root).parts[0]):
                raise
        except OSError:
            raise
        except Exception as error:  # the library of a bucket has its own errors
            raise OSError(f"the store does not answer: {error}") from error

    def _path(self, key: str) -> str:
        return f"{self._root}/{safe_key(key)}"

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


def _copy_synced(source: Path, target: Path) -> None:
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with source.open("rb") as reader, _create(partial) as writer:
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
            writer.flush()
            os.fsync(writer.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _create(path: Path) -> IO[bytes]:
    """Creates a file and its folders. Tries again if a concurrent removal deleted a folder that was still empty."""
    for _ in range(_FOLDER_TRIES):
        with suppress(FileNotFoundError, FileExistsError):  # mkdir raises either, depending on when the folder disappears
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


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
