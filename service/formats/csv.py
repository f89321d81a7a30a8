"""CSV (RFC 4180): a line of column names, then the rows, fields separated by commas and quoted with ``"`` where they need it.

All values are text: a target is numeric if each of its values is empty, ``nan`` or can be parsed as a number, and boolean if each
is empty, ``true`` or ``false`` in any case.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidFile
from service.formats.chunk import ColumnSelection
from service.formats.lines import MAX_LINE_BYTES, read_lines
from service.formats.record import BlankLines, Record, RecordTable, Scalar

_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_HOW_TO_WRITE = 'fields with commas, quotes or line ends stand in quotes, and a quote in them is written twice ("")'


def open_csv(path: Path, selection: ColumnSelection) -> RecordTable:
    """See :class:`service.formats.chunk.Reader`."""
    return RecordTable(CsvRecords(path), selection)


class CsvRecords:
    """See :class:`service.formats.record.Records`."""

    is_typed = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.blank = BlankLines()
        _, self._names = next(self._rows(), (1, []))
        self.columns = dict.fromkeys(self._names, "string")
        if len(self.columns) < len(self._names):
            twice = next(name for name in self._names if self._names.count(name) > 1)
            raise InvalidFile(f"line 1 names column {twice!r:.80} twice; give each column a name of its own")
        lone = self._names[0] if len(self._names) == 1 else ""
        self.hint = "; fields are separated by commas" if re.search(r"[;\t|]", lone) else ""

    def __iter__(self) -> Iterator[Record]:
        rows = self._rows()
        next(rows, None)
        for line, fields in rows:
            if len(fields) != len(self._names):
                raise InvalidFile(
                    f"line {line} has {len(fields)} fields, and line 1 names {len(self._names)} columns; {_HOW_TO_WRITE}"
                )
            yield Record(line, dict(zip(self._names, fields, strict=True)))

    def types(self, record: Record) -> dict[str, str]:
        return dict.fromkeys(record.values, "string")

    def scalar(self, value: object) -> Scalar | None:
        if not isinstance(value, str) or not value or value.isspace():
            return None
        if _INTEGER.fullmatch(value):
            return int(value)
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        return float(value) if _NUMBER.fullmatch(value) or value.lower() == "nan" else value

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields each row that is not blank, including the column names, with the line on which it begins."""
        line, size = 1, 0
        self.blank = BlankLines()

        def feed() -> Iterator[str]:
            nonlocal size
            for _, text in read_lines(self._path):
                size += len(text)
                if size > MAX_LINE_BYTES:
                    raise InvalidFile(
                        f"the row that begins on line {line} has more than {MAX_LINE_BYTES:,} characters; is a quote in it never "
                        f"closed? {_HOW_TO_WRITE}"
                    )
                yield text

        reader = csv.reader(feed(), strict=True)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InvalidFile(
                    f"the row that begins on line {line} is no CSV: {error}; {_HOW_TO_WRITE}; JSON Lines and Parquet take fields "
                    f"of more than {csv.field_size_limit():,} characters"
                ) from error
            if fields:
                self.blank.end_at_row()
                yield line, fields
            else:
                self.blank.add(line)
            line, size = reader.line_num + 1, 0
