"""JSON Lines: one object on each line, or one array of objects. Blank lines are skipped."""

import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path

from service.errors import InvalidFile
from service.formats.chunk import ColumnSelection
from service.formats.columns.nested import nested_columns, with_nested
from service.formats.readers.json_array import RepeatedKey, is_array, read_array, repeated
from service.formats.readers.lines import read_lines
from service.formats.readers.record import BlankLines, Record, RecordTable, Scalar

_TYPES = {bool: "boolean", int: "int64", float: "float64", str: "string", list: "list", dict: "object"}
_HOW_TO_WRITE = "write each row as one JSON object on a line of its own, or all rows as one array"


def open_jsonl(path: Path, selection: ColumnSelection) -> RecordTable:
    """See :class:`service.formats.chunk.Reader`."""
    return RecordTable(JsonlRecords(path, nested_columns(selection)), selection)


class JsonlRecords:
    """See :class:`service.formats.readers.record.Records`."""

    is_typed = True
    hint = ""

    def __init__(self, path: Path, nested: Collection[str]) -> None:
        self._path, self._nested, self._is_array = path, nested, is_array(path)
        self.blank = BlankLines()
        first = next(iter(self), None)
        self.columns = {} if first is None else self.types(first)

    def __iter__(self) -> Iterator[Record]:
        self.blank = BlankLines()
        for number, values in read_array(self._path, _unique) if self._is_array else self._lines():
            if not isinstance(values, dict):
                raise InvalidFile(f"line {number} is no JSON object but {json.dumps(values)!r:.80}; {_HOW_TO_WRITE}")
            yield Record(number, with_nested(values, self._nested))

    def _lines(self) -> Iterator[tuple[int, object]]:
        for number, line in read_lines(self._path):
            if not line.strip():
                self.blank.add(number)
                continue
            self.blank.end_at_row()
            try:
                yield number, json.loads(line, object_pairs_hook=_unique)
            except RepeatedKey as error:
                raise repeated(error, line=number) from error
            except (ValueError, RecursionError) as error:
                raise InvalidFile(f"line {number} is no JSON: {str(error)[:200]}; {_HOW_TO_WRITE}") from error

    def types(self, record: Record) -> dict[str, str]:
        return {name: _TYPES.get(type(value), "null") for name, value in record.values.items()}

    def scalar(self, value: object) -> Scalar | None:
        match value:
            case float() if math.isnan(value):
                return None
            case str() if not value or value.isspace():
                return None
            case int() | float() | str() | None:
                return value
            case list() if all(isinstance(each, int | float | str) for each in value):
                return value
            case _:
                raise ValueError(
                    f"a target is a number, a string, true or false, or a list of these, not {json.dumps(value)[:80]}"
                )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON, of which Python's decoder keeps the last of equal keys without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        raise RepeatedKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return values
