"""Reads a text file line by line, with a limit on the length of a line."""

from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidFile
from service.formats.readers.text_file import open_text

MAX_LINE_BYTES = 16 * 2**20


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number of each line, from 1, and the line with its end. A byte-order mark is removed.

    Raises:
        InvalidFile: a line is too long or not UTF-8, or lines end as those of old Macs.
    """
    number = 0
    with open_text(path) as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1 and not raw.endswith(b"\n") and b"\r" in raw.rstrip(b"\r"):
                raise InvalidFile(
                    "the lines end with carriage returns alone (\\r), from line 1 on, as old Macs and Excel's CSV (Macintosh) "
                    "write them; save it as CSV UTF-8, or tr '\\r' '\\n' < file > mended"
                )
            if len(raw) > MAX_LINE_BYTES:
                raise InvalidFile(f"line {number} has more than {MAX_LINE_BYTES:,} bytes; cut its texts into several rows")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidFile(f"line {number} is no UTF-8 (byte {error.start} of it); save the file as UTF-8 text") from error
