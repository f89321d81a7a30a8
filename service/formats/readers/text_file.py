"""Opens files of text, which may be compressed with gzip, bzip2 or xz; what they unpack to is bounded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from service.archives import DAMAGE, LEAST_ALLOWANCE_BYTES, is_damage, opener_of
from service.errors import InvalidFile
from service.formats.readers.members import holds_tar

_START_BYTES = 4096
_MAX_RATIO = 200
"""Text compresses to a tenth, and rows that are nearly alike to a fiftieth of their size."""
_OTHERS = (b"PAR1", b"PK")


class TextFile(Protocol):
    """The bytes of a file of text."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, none at the end."""

    def readline(self, size: int, /) -> bytes:
        """The rest of the line, of which at most that many bytes."""


@contextmanager
def open_text(path: Path) -> Iterator[TextFile]:
    """Opens a file of text, unpacked. Reading raises InvalidFile where it is damaged, or unpacks to far more than its size."""
    with path.open("rb") as raw:
        opener = opener_of(raw)
        if opener is None:
            yield raw
            return
        with opener(raw) as unpacked:
            yield _Unpacked(unpacked, allowance=max(LEAST_ALLOWANCE_BYTES, _MAX_RATIO * path.stat().st_size))


def compressed_text(path: Path) -> bytes | None:
    """The first bytes of the text that a compressed file holds; None if it is not compressed, or holds something else."""
    with path.open("rb") as raw:
        if opener_of(raw) is None or holds_tar(path):
            return None
    with open_text(path) as file:
        start = file.read(_START_BYTES)
    return None if b"\0" in start or start.startswith(_OTHERS) else start


class _Unpacked:
    def __init__(self, file: IO[bytes], *, allowance: int) -> None:
        self._file, self._allowance, self._num_bytes = file, allowance, 0

    def read(self, size: int, /) -> bytes:
        return self._counted(self._file.read, size)

    def readline(self, size: int, /) -> bytes:
        return self._counted(self._file.readline, size)

    def _counted(self, read: "_Read", size: int) -> bytes:
        try:
            data = read(size)
        except (*DAMAGE, OSError) as error:
            if not is_damage(error):
                raise
            raise InvalidFile(
                f"the compressed file is damaged or cut off behind {self._num_bytes:,} bytes of text; compress it again"
            ) from error
        self._num_bytes += len(data)
        if self._num_bytes > self._allowance:
            raise InvalidFile("the file unpacks to far more than its own size; that is refused: send it unpacked")
        return data


class _Read(Protocol):
    def __call__(self, size: int, /) -> bytes: ...
