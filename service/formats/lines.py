"""The lines of a text file, one at a time, each of bounded length."""

from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidFile

MAX_LINE_BYTES = 16 * 2**20


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its end, and its number from 1. A byte-order mark is left out.

    Raises:
        InvalidFile: a line is too long, or no UTF-8.
    """
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise InvalidFile(f"line {number} has more than {MAX_LINE_BYTES:,} bytes; cut its texts into several rows")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidFile(
                    f"line {number} is no UTF-8 (byte {error.start} of it); save the file as UTF-8 text, not compressed"
                ) from error
