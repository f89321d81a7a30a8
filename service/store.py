"""Files of jobs, datasets and models, in a folder (``file:///path``) or a bucket (``s3://bucket/prefix``), behind fsspec.

A key is a relative path of plain names; nothing is overwritten in place, and a file is whole before its key exists. What a
reader may see is decided by the database: files are written under an attempt's own prefix and made visible by a commit.
"""

import hashlib
import mimetypes
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from service.errors import NotFound
from service.jobs import StoredFile

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


def safe_key(key: str) -> str:
    """The key itself, if it stays inside the store. Raises NotFound for one that climbs out or has odd names."""
    parts = key.split("/")
    if not all(_NAME.fullmatch(part) for part in parts):
        raise NotFound(f"there is no file {key!r}: a name holds letters, digits, '.', '_', '-', and no '..' or empty part")
    return key


def media_type(name: str) -> str:
    """The media type of a file by its ending."""
    suffix = PurePosixPath(name).suffix
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Store:
    """The store at one address."""

    def __init__(self, url: str) -> None:
        self._filesystem, root = fsspec.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in self._filesystem.protocol
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def put(self, source: Path, key: str, *, name: str | None = None) -> StoredFile:
        """Copies a file in, whole or not at all. ``name`` is how its job calls it; by default the key's last part."""
        digest, size = file_sha256(source)
        target = self._path(key)
        if self._local:
            _copy_synced(source, Path(target))
        else:
            self._filesystem.put_file(str(source), target)
        name = name or key.rpartition("/")[2]
        return StoredFile(name=name, path=key, size=size, sha256=digest, media_type=media_type(name))

    def put_folder(self, source: Path, prefix: str) -> list[StoredFile]:
        """Copies every file of a folder in; each is named by its path in the folder."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        names = [path.relative_to(source).as_posix() for path in files]
        return [self.put(path, f"{prefix}/{name}", name=name) for path, name in zip(files, names, strict=True)]

    def fetch(self, key: str, target: Path, *, sha256: str | None = None) -> None:
        """Copies a file out. Raises NotFound when it is gone, or is not what was recorded."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        try:
            self._filesystem.get_file(self._path(key), str(partial))
        except FileNotFoundError as error:
            self.ping()  # a store that is not mounted has lost nothing
            raise NotFound(f"{key} is not in the store any more") from error
        if sha256 is not None and file_sha256(partial)[0] != sha256:
            partial.unlink()
            raise NotFound(f"{key} in the store is not what was recorded: its SHA-256 differs")
        partial.replace(target)

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The file's bytes from ``start``, in chunks. The file is opened before the first chunk is asked for."""
        try:
            file = self._filesystem.open(self._path(key), "rb")
        except FileNotFoundError as error:
            raise NotFound(f"{key} is not in the store any more") from error
        return _chunks(file, start, length)

    def signed_url(self, key: str) -> str | None:
        """An address at which the file can be read for an hour, where the store has such; None for a folder."""
        if self._local:
            return None
        try:
            return str(self._filesystem.sign(self._path(key), expiration=SIGNED_SECONDS))
        except NotImplementedError:
            return None

    def remove(self, keys: Iterable[str]) -> None:
        """Removes files; those that are gone already are no error."""
        for key in keys:
            path = self._path(key)
            if self._local:
                Path(path).unlink(missing_ok=True)
                self._remove_empty_folders(Path(path).parent)
            else:
                with suppress(FileNotFoundError):
                    self._filesystem.rm_file(path)

    def remove_prefix(self, prefix: str) -> None:
        """Removes everything under a prefix."""
        with suppress(FileNotFoundError):
            self._filesystem.rm(self._path(prefix), recursive=True)

    def ping(self) -> None:
        """Raises OSError when the store cannot be reached."""
        try:
            self._filesystem.ls(self._root, refresh=True)  # or a bucket's answer would be the first one, kept for ever
        except FileNotFoundError:
            # Before its first file a prefix is not there, while its bucket is.
            if self._local or not self._filesystem.exists(PurePosixPath(self._root).parts[0]):
                raise
        except OSError:
            raise
        except Exception as error:  # a bucket's library has errors of its own
            raise OSError(f"the store does not answer: {error}") from error

    def _path(self, key: str) -> str:
        return f"{self._root}/{safe_key(key)}"

    def _remove_empty_folders(self, folder: Path) -> None:
        with suppress(OSError):  # the kernel decides what is empty; somebody else may be putting or removing here
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
    """A new file with its folders; again, when a removal found one of them empty and took it away before the file was in it."""
    for _ in range(_FOLDER_TRIES):
        with suppress(FileNotFoundError, FileExistsError):  # mkdir raises either, by the moment at which the folder goes
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
