"""CSV (RFC 4180): a line of column names, then the rows, fields separated by commas and quoted with ``"`` where they need it.

Semicolons, tabs or bars may stand in the place of the commas: the separator is the one by which the line of names has the input
column, or the one that Excel's first line ``sep=;`` says. Where it is no comma, a target ``1,5`` may be a number and is refused.

All values are text: a target is numeric if each of its values is empty, ``nan`` or can be parsed as a number, and boolean if each
is empty, ``true`` or ``false`` in any case.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidFile
from service.formats.chunk import ColumnSelection
from service.formats.readers.lines import MAX_LINE_BYTES, read_lines
from service.formats.readers.record import BlankLines, Record, RecordTable, Scalar

_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?")
_SEPARATORS = (",", ";", "\t", "|")
_HOW_TO_WRITE = 'fields with commas, quotes or line ends stand in quotes, and a quote in them is written twice ("")'


def open_csv(path: Path, selection: ColumnSelection) -> RecordTable:
    """See :class:`service.formats.chunk.Reader`."""
    return RecordTable(CsvRecords(path, selection.input_column), selection)


class CsvRecords:
    """See :class:`service.formats.readers.record.Records`."""

    is_typed = False

    def __init__(self, path: Path, input_column: str) -> None:
        self._path = path
        self.blank = BlankLines()
        self._separator, self._names = self._header(input_column)
        self.columns = dict.fromkeys(self._names, "string")
        if len(self.columns) < len(self._names):
            twice = next(name for name in self._names if self._names.count(name) > 1)
            raise InvalidFile(f"line 1 names column {twice!r:.80} twice; give each column a name of its own")
        lone = self._names[0] if len(self._names) == 1 else ""
        self.hint = "; fields are separated by commas, semicolons or tabs" if re.search(r"[;\t|]", lone) else ""

    def __iter__(self) -> Iterator[Record]:
        rows = self._rows(self._separator)
        if _says_separator(next(rows, (1, []))[1]):
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
        if self._separator != "," and _DECIMAL_COMMA.fullmatch(value):
            raise ValueError(
                f"{value!r:.80} may be a number with a decimal comma; write numbers with a point, {value.replace(',', '.')}"
            )
        if _INTEGER.fullmatch(value):
            return int(value)
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        return float(value) if _NUMBER.fullmatch(value) or value.lower() == "nan" else value

    def _header(self, input_column: str) -> tuple[str, list[str]]:
        """The separator, and the names of the columns."""
        for separator in _SEPARATORS:
            rows = self._rows(separator)
            try:
                _, names = next(rows, (1, []))
                if _says_separator(names):
                    return separator, next(rows, (1, []))[1]
            except InvalidFile:  # by another separator it may be none
                continue
            if input_column in names:
                return separator, names
        return ",", next(self._rows(","), (1, []))[1]

    def _rows(self, separator: str) -> Iterator[tuple[int, list[str]]]:
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

        reader = csv.reader(feed(), delimiter=separator, strict=True)
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


def _says_separator(fields: list[str]) -> bool:
    """Whether the first line is ``sep=`` and the separator, as Excel writes it; split by that, it ends with an empty field."""
    return fields == ["sep=", ""]
