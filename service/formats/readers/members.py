"""Reads the files inside a zip or tar one by one.

Invariant: nothing is unpacked under its own name, no link is followed, and the sizes that an archive declares are not trusted.
Hidden files and the files that macOS and Windows add are skipped. A zip whose paths have backslashes alone is one of Windows.
"""

import os
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Protocol

from service.archives import DAMAGE, LEAST_ALLOWANCE_BYTES, MAX_RATIO, Metered, is_damage, is_of_system, opener_by, opener_of
from service.errors import InvalidFile

MAX_FILES = 1_000_000
MAX_FILE_BYTES = 2**30
_MAX_NAME_CHARACTERS = 1000
_MOST_NAMES = 10
_READ_BYTES = 2**20
_ENCRYPTED, _IS_UTF_8 = 0x1, 0x800
"""Flags of a zip's member."""
_HOW_TO_PACK = "pack plain files alone"


class Members(Protocol):
    """The files of an open archive."""

    paths: list[PurePosixPath]
    """Sorted by their parts."""
    skipped: "Skipped"
    """The files that are left out."""
    empty_folders: list[PurePosixPath]
    """The folders that hold no file, also not in a folder of theirs; sorted."""
    are_names_certain: bool
    """Whether the archive says the encoding of its names, or they show it."""

    def read(self, path: PurePosixPath) -> bytes:
        """Reads the content of one file.

        Raises:
            InvalidFile: it is damaged or far too large.
        """


@dataclass
class Skipped:
    """The hidden files of an archive: how many, and the first names."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < _MOST_NAMES:
            self.first.append(name)


@contextmanager
def open_members(path: Path, *, max_unpacked_bytes: int) -> Iterator[Members]:
    """Opens a zip, or a tar that may be compressed with gzip, bzip2 or xz.

    Raises:
        InvalidFile: it is neither, is damaged, or contains links, devices, unsafe paths or too much.
    """
    with ExitStack() as stack:
        try:
            members: Members
            with path.open("rb") as file:
                is_zip = file.read(2) == b"PK"
            if is_zip:
                members = _Zip(stack.enter_context(zipfile.ZipFile(path)), max_unpacked_bytes)
            else:
                members = _Tar(stack.enter_context(_decompressed(path, max_unpacked_bytes)), max_unpacked_bytes)
        except (*DAMAGE, OSError) as error:
            if is_damage(error):
                raise InvalidFile(f"the archive is no zip or tar, or it is damaged: {str(error)[:200]}; pack it again") from error
            raise
        yield members


def is_tar(start: bytes) -> bool:
    """Whether a file with these first bytes is a tar, or compressed in a way that a tar may be."""
    return start[257:262] == b"ustar" or opener_by(start) is not None


def holds_tar(path: Path) -> bool:
    """Whether a file that is compressed holds a tar, or is damaged, which the tar's reader reports."""
    with path.open("rb") as raw:
        opener = opener_of(raw)
        assert opener is not None
        try:
            with opener(raw) as source:
                block = source.read(tarfile.BLOCKSIZE)
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return not block.strip(b"\0")  # a tar of nothing
        except (*DAMAGE, OSError):
            return True
    return True


class _Zip:
    def __init__(self, opened: zipfile.ZipFile, max_unpacked_bytes: int) -> None:
        self._opened = opened
        self._members: dict[PurePosixPath, zipfile.ZipInfo] = {}
        self.skipped = Skipped()
        self.are_names_certain = True
        members = opened.infolist()
        separator = "/" if any("/" in member.filename for member in members) else "\\"
        folders = set[PurePosixPath]()
        for member in members:
            name = self._decoded(member).replace(separator, "/")
            path = _visible_path(name)
            if name.endswith("/"):
                folders |= {path} if path is not None else set()
                continue
            if path is None:
                self.skipped.add(name)
                continue
            if member.flag_bits & _ENCRYPTED:
                raise InvalidFile(f"{name[:200]!r} in the zip is encrypted; pack it without a password")
            if stat.S_IFMT(member.external_attr >> 16) not in {0, stat.S_IFREG}:
                raise _no_plain_file(member.filename)
            # zipfile unpacks the other kinds without a bound.
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise InvalidFile(
                    f"{member.filename[:200]!r} in the zip is compressed in a rare way; pack it with deflate, the usual"
                )
            _check_new(path, self._members, member.file_size)
            self._members[path] = member
        _check_sum(sum(member.file_size for member in self._members.values()), max_unpacked_bytes)
        self.paths = _sorted(self._members)
        self.empty_folders = _empty(folders, self.paths)

    def _decoded(self, member: zipfile.ZipInfo) -> str:
        """The name of a member: macOS writes UTF-8 without the mark that says so."""
        if member.flag_bits & _IS_UTF_8 or member.filename.isascii():
            return member.filename
        try:
            return member.filename.encode("cp437").decode()
        except UnicodeError:
            self.are_names_certain = False
            return member.filename

    def read(self, path: PurePosixPath) -> bytes:
        try:
            with self._opened.open(self._members[path]) as source:
                # In blocks: zipfile stops at the declared size, but decompresses a whole read before it truncates it.
                return b"".join(iter(lambda: source.read(_READ_BYTES), b""))
        except (*DAMAGE, OSError) as error:
            raise _damaged(path, error) from error


class _Tar:
    def __init__(self, plain: IO[bytes], max_unpacked_bytes: int) -> None:
        self._plain = plain
        self._places: dict[PurePosixPath, tuple[int, int]] = {}
        self.skipped = Skipped()
        self.are_names_certain = True
        folders = set[PurePosixPath]()
        total = 0
        size = plain.seek(0, os.SEEK_END)
        plain.seek(0)
        with tarfile.open(fileobj=Metered(plain, size + LEAST_ALLOWANCE_BYTES, "the archive"), mode="r:") as opened:  # type: ignore[call-overload]
            while (member := opened.next()) is not None:
                opened.members = []  # tarfile keeps every one, a thousand bytes each
                path = _visible_path(member.name)
                if member.isdir():
                    folders |= {path} if path is not None else set()
                    continue
                if path is None:
                    self.skipped.add(member.name)
                    continue
                if not member.isreg() or member.issparse():
                    raise _no_plain_file(member.name)
                _check_new(path, self._places, member.size)
                self._places[path] = (member.offset_data, member.size)
                total += member.size
            # tarfile takes a damaged header for the end, which is a block of zeros.
            plain.seek(opened.offset)
            if plain.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InvalidFile("the tar is damaged or cut off: what follows its last file is no end; pack it again")
        _check_sum(total, max_unpacked_bytes)
        self.paths = _sorted(self._places)
        self.empty_folders = _empty(folders, self.paths)

    def read(self, path: PurePosixPath) -> bytes:
        start, size = self._places[path]
        self._plain.seek(start)
        data = self._plain.read(size)
        if len(data) < size:
            raise InvalidFile(f"{str(path)!r} in the archive is cut off; pack it again")
        return data


@contextmanager
def _decompressed(path: Path, max_unpacked_bytes: int) -> Iterator[IO[bytes]]:
    """Decompresses a tar into an anonymous temporary file."""
    with path.open("rb") as raw:
        opener = opener_of(raw)
        if opener is None:
            yield raw
            return
        # The archive's folder has room for it; if it is read-only, the system's temporary folder is used.
        folder = path.parent if os.access(path.parent, os.W_OK) else None
        allowance = min(max_unpacked_bytes, max(LEAST_ALLOWANCE_BYTES, MAX_RATIO * path.stat().st_size))
        with TemporaryFile(dir=folder) as plain:
            with opener(raw) as source:
                while block := source.read(_READ_BYTES):
                    plain.write(block)
                    if plain.tell() > allowance:
                        raise InvalidFile("the archive unpacks to far more than its own size; that is refused: pack it as a zip")
            yield plain


def _visible_path(name: str) -> PurePosixPath | None:
    path = PurePosixPath(name)
    if name.startswith("/") or ".." in path.parts or "\\" in name:
        raise InvalidFile(
            f"the archive holds {name[:200]!r}, a path that leads out of it; pack the folder with relative paths and /"
        )
    if len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidFile(f"the archive holds {name[:200]!r}…, a path of {len(name):,} characters; shorten it")
    return None if is_of_system(path) else path


def _empty(folders: Collection[PurePosixPath], paths: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    full = {parent for path in paths for parent in path.parents}
    return _sorted(folder for folder in folders if folder not in full)


def _check_new(path: PurePosixPath, known: Mapping[PurePosixPath, object], size: int) -> None:
    if path in known:
        raise InvalidFile(f"the archive holds {str(path)[:200]!r} twice; pack it again")
    if len(known) == MAX_FILES:
        raise InvalidFile(f"the archive holds more than {MAX_FILES:,} files; write the samples into a Parquet file instead")
    if size > MAX_FILE_BYTES:
        raise InvalidFile(
            f"{str(path)[:200]!r} in the archive has {size:,} bytes; at most {MAX_FILE_BYTES:,} may be: make it smaller"
        )


def _check_sum(num_bytes: int, max_unpacked_bytes: int) -> None:
    if num_bytes > max_unpacked_bytes:
        raise InvalidFile(f"unpacked, the files are {num_bytes:,} bytes; at most {max_unpacked_bytes:,} may be")


def _no_plain_file(name: str) -> InvalidFile:
    return InvalidFile(f"the archive holds {name[:200]!r}, a link or a device; {_HOW_TO_PACK}")


def _damaged(path: PurePosixPath, error: Exception) -> Exception:
    if is_damage(error):
        return InvalidFile(f"{str(path)!r} in the archive cannot be read: {str(error)[:200]}; pack it again, without a password")
    return error


def _sorted(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    return sorted(paths, key=lambda path: path.parts)
