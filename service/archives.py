"""Unpacks an uploaded zip or tar safely: no path outside the folder, no links, no decompression bombs.

The sizes that an archive declares are not trusted: bytes are counted as they are decompressed, those of skipped files too.
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
"""Weights, images and audio hardly compress: an archive that unpacks to more than this times its size is a bomb."""
_MAX_NAME_CHARACTERS = 500
_OF_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_ENTRIES_PER_FILE = 10
"""The most entries for each file, because folders and hidden files come in addition."""
_OPENERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# zipfile and tarfile check little: a wrong encoding, date or offset raises wherever it is used. A password is a RuntimeError, an
# unknown compression a NotImplementedError.
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError,
    ValueError, LookupError, ArithmeticError, NotImplementedError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Limits on what an archive unpacks to."""

    max_bytes: int
    max_files: int


def unpack(archive: Path, folder: Path, *, filename: str, limits: Limits) -> tuple[Path, list[Path]]:
    """Unpacks into ``folder``. Returns the folder that contains the files, which may be deep in it, and their paths.

    Hidden files and the files that macOS and Windows add are skipped.

    Raises:
        InvalidFile: it is not an archive, is damaged, or contains links, unsafe paths or too much.
    """
    allowance = left = min(limits.max_bytes, max(LEAST_ALLOWANCE_BYTES, MAX_RATIO * archive.stat().st_size))
    written: list[Path] = []
    try:
        members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
        for number, (name, source) in enumerate(members(archive, filename, allowance)):
            if len(written) >= limits.max_files or number >= limits.max_files * _ENTRIES_PER_FILE:
                raise InvalidFile(f"{filename!r} holds more than {limits.max_files} files; pack the model's own folder alone")
            relative = None if source is None else safe_path(name, filename)
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
    while len({path.parts[0] for path in written}) == 1 and all(len(path.parts) > 1 for path in written):
        root = written[0].parts[0]
        folder, written = folder / root, [path.relative_to(root) for path in written]
    return folder, written


def is_damage(error: Exception) -> bool:
    """Whether an error of reading an archive is due to its contents rather than to the disk."""
    # gzip and bz2 report damage by an OSError without errno; zipfile passes a negative offset to the kernel, which is EINVAL.
    return not isinstance(error, OSError) or error.errno in {None, errno.EINVAL}


def opener_of(raw: IO[bytes]) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """The decompressor for a file, by its first bytes; None if it is not compressed."""
    start = raw.read(max(map(len, _OPENERS)))
    raw.seek(0)
    return opener_by(start)


def opener_by(start: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """The decompressor for a file with these first bytes; None if it is not compressed."""
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


_Members = Iterator[tuple[str, IO[bytes] | None]]
"""Name and content of each member; None for a folder."""


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
    """A file for tarfile that limits reads and positions: tarfile reads headers of any size into memory and skips any size."""

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


def is_of_system(path: PurePosixPath) -> bool:
    """Whether a file is hidden, or one that macOS or Windows adds to folders of their own accord."""
    return path.name.lower() in _OF_SYSTEM or any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def safe_path(name: str, filename: str) -> Path | None:
    """The path of a file within the folder that ``filename`` holds; None for a hidden one. Raises InvalidFile."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts:
        raise InvalidFile(f"{filename!r} holds {name!r:.200}, a path that leads out of it")
    if len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidFile(f"{filename!r} holds {name!r:.200}…, a path of {len(name)} characters")
    if is_of_system(PurePosixPath(name)):
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
