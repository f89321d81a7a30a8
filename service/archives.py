"""Unpacking an uploaded zip or tar: nothing leaves the folder, no links, no bombs.

What an archive says of its sizes is not believed: bytes are counted as they come out.
"""

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from service.errors import InvalidFile

_CHUNK_BYTES = 2**20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,200}")
_LEAST_ALLOWANCE_BYTES = 64 * 2**20
_MAX_RATIO = 20
"""Weights hardly shrink; what unpacks to more than this times its size is a bomb."""


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
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    allowance = min(limits.max_bytes, max(_LEAST_ALLOWANCE_BYTES, _MAX_RATIO * archive.stat().st_size))
    written: list[Path] = []
    try:
        for name, source in members(archive):
            relative = _safe_path(name, filename)
            if relative is None:
                continue
            if len(written) >= limits.max_files:
                raise InvalidFile(f"{filename!r} holds more than {limits.max_files} files; pack the model's own folder alone")
            target = folder / relative
            if target.exists():
                raise InvalidFile(f"{filename!r} holds {name!r:.200} twice")
            target.parent.mkdir(parents=True, exist_ok=True)
            allowance -= _copy(source, target, allowance=allowance, filename=filename)
            written.append(relative)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        # zipfile reports an unknown compression or a password by the last two, gzip and bz2 damage by an OSError of their own.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidFile(f"{filename!r} is no zip or tar, or it is damaged: {error}") from error
    if not written:
        raise InvalidFile(f"{filename!r} holds no file")
    tops = {path.parts[0] for path in written}
    if len(tops) == 1 and all(len(path.parts) > 1 for path in written):
        root = tops.pop()
        return folder / root, [path.relative_to(root) for path in written]
    return folder, written


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                continue
            if kind not in {0, stat.S_IFREG}:
                raise InvalidFile(f"{member.filename!r:.200} is a link or a device; pack plain files alone")
            with opened.open(member) as source:
                yield member.filename, source


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isdir():
                continue
            source = opened.extractfile(member) if member.isreg() else None
            if source is None:
                raise InvalidFile(f"{member.name!r:.200} is a link or a device; pack plain files alone")
            with source:
                yield member.name, source


def _safe_path(name: str, filename: str) -> Path | None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts:
        raise InvalidFile(f"{filename!r} holds {name!r:.200}, a path that leads out of it")
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
