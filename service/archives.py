"""Unpacking an uploaded zip or tar: nothing leaves the folder, no links, no bombs.

What an archive says of its sizes is not believed: bytes are counted as they come out, those that are left out as well.
"""

import bz2
import errno
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from service.errors import InvalidFile

_CHUNK_BYTES = 2**20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,200}")
LEAST_ALLOWANCE_BYTES = 64 * 2**20
MAX_RATIO = 20
"""Weights, images and sound hardly shrink; what unpacks to more than this times its size is a bomb."""
_MAX_NAME_CHARACTERS = 500
_ENTRIES_PER_FILE = 10
"""Folders and hidden files that may come with each file."""
_OPENERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# zipfile and tarfile check little of what they read: a name's encoding, a date or a place is found wrong by whatever uses it.
# A password and an unknown compression are a RuntimeError and a NotImplementedError.
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError,
    ValueError, LookupError, ArithmeticError, NotImplementedError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Most that an archive may unpack to."""

    max_bytes: int
    max_files: int


def unpack(archive: Path, folder: Path, *, filename: str, limits: Limits) -> tuple[Path, list[Path]]:
    """Unpacks into ``folder``; the folder that holds the files, which may be one inside it, and their paths in it.

    Hidden files and what macOS adds are left out.

    Raises:
        InvalidFile: it is no archive, is damaged, or holds what must not be.
    """
    allowance = left = min(limits.max_bytes, max(LEAST_ALLOWANCE_BYTES, MAX_RATIO * archive.stat().st_size))
    written: list[Path] = []
    try:
        members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
        for number, (name, source) in enumerate(members(archive, filename, allowance)):
            if len(written) >= limits.max_files or number >= limits.max_files * _ENTRIES_PER_FILE:
                raise InvalidFile(f"{filename!r} holds more than {limits.max_files} files; pack the model's own folder alone")
            relative = None if source is None else _safe_path(name, filename)
            if source is None or relative is None:
                continue
            target = folder / relative
            if target.exists() or any((folder / parent).is_file() for parent in relative.parents):
                raise InvalidFile(f"{filename!r} holds {name!r:.200} twice")
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _copy(source, target, allowance=left, filename=filename)
            written.append(relative)
    except (*DAMAGE, OSError) as error:
        if not is_damage(error):
            raise
        raise InvalidFile(f"{filename!r} is no zip or tar, or it is damaged: {error}") from error
    if not written:
        raise InvalidFile(f"{filename!r} holds no file")
    tops = {path.parts[0] for path in written}
    if len(tops) == 1 and all(len(path.parts) > 1 for path in written):
        root = tops.pop()
        return folder / root, [path.relative_to(root) for path in written]
    return folder, written


def is_damage(error: Exception) -> bool:
    """Whether a file is to blame for an error of reading it, rather than the disk."""
    # gzip and bz2 report damage by an OSError without a number, zipfile leaves a place before the file's start to the kernel.
    return not isinstance(error, OSError) or error.errno in {None, errno.EINVAL}


def opener_of(raw: IO[bytes]) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """What decompresses a file, by its first bytes; None for one that is not compressed."""
    start = raw.read(max(map(len, _OPENERS)))
    raw.seek(0)
    return opener_by(start)


def opener_by(start: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """The same of a file's first bytes."""
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


_Members = Iterator[tuple[str, IO[bytes] | None]]
"""Name and content of each member; a folder has none."""


def _zip_members(archive: Path, filename: str, allowance: int) -> _Members:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                yield member.filename, None
                continue
            if kind not in {0, stat.S_IFREG}:
                raise InvalidFile(f"{filename!r} holds {member.filename!r:.200}, a link or a device; pack plain files alone")
            with opened.open(member) as source:
                yield member.filename, source


def _tar_members(archive: Path, filename: str, allowance: int) -> _Members:
    with archive.open("rb") as raw:
        opener = opener_of(raw)
        plain = Metered(raw if opener is None else opener(raw), allowance, repr(filename))
        with tarfile.open(fileobj=plain, mode="r:") as opened:  # type: ignore[call-overload]
            for member in opened:
                if member.isdir():
                    yield member.name, None
                    continue
                source = opened.extractfile(member) if member.isreg() else None
                if source is None:
                    raise InvalidFile(f"{filename!r} holds {member.name!r:.200}, a link or a device; pack plain files alone")
                with source:
                    yield member.name, source


class Metered:
    """A tar, decompressed as it is read. tarfile reads a header of any size into memory, and passes over what is skipped."""

    def __init__(self, file: IO[bytes], allowance: int, what: str) -> None:
        self._file = file
        self._allowance = allowance
        self._what = what

    def read(self, size: int) -> bytes:
        if size > _CHUNK_BYTES:
            raise InvalidFile(f"{self._what} holds a header of {size} bytes; that is refused")
        self._pay(self.tell() + size)
        return self._file.read(size)

    def seek(self, position: int) -> None:
        self._pay(position)
        self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def _pay(self, position: int) -> None:
        if position > self._allowance:
            raise InvalidFile(f"{self._what} unpacks to far more than its own size; that is refused")


def _safe_path(name: str, filename: str) -> Path | None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts:
        raise InvalidFile(f"{filename!r} holds {name!r:.200}, a path that leads out of it")
    if len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidFile(f"{filename!r} holds {name!r:.200}…, a path of {len(name)} characters")
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    if not parts or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidFile(f"{filename!r} holds {name!r:.200}: file names may have letters, digits and . _ + @ - alone")
    return Path(*parts)


def _copy(source: IO[bytes], target: Path, *, allowance: int, filename: str) -> int:
    size = 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > allowance:
                raise InvalidFile(f"{filename!r} unpacks to far more than its own size; that is refused")
            file.write(chunk)
    return size
