"""JSON Lines: one object on each line. Blank lines are skipped."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidFile
from service.formats.chunk import ColumnSelection
from service.formats.lines import read_lines
from service.formats.record import Record, RecordTable, Scalar

_TYPES = {bool: "boolean", int: "int64", float: "float64", str: "string", list: "list", dict: "object"}
_HOW_TO_WRITE = "write each row as one JSON object on a line of its own"


def open_jsonl(path: Path, selection: ColumnSelection) -> RecordTable:
    """See :class:`service.formats.chunk.Reader`."""
    return RecordTable(JsonlRecords(path), selection)


class JsonlRecords:
    """See :class:`service.formats.record.Records`."""

    is_typed = True
    hint = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        first = next(iter(self), None)
        self.columns = {} if first is None else self.types(first)

    def __iter__(self) -> Iterator[Record]:
        for number, line in read_lines(self._path):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidFile(f"line {number} is no JSON: {str(error)[:200]}; {_HOW_TO_WRITE}") from error
            if not isinstance(values, dict):
                raise InvalidFile(f"line {number} is no JSON object but {line.strip()!r:.80}; {_HOW_TO_WRITE}")
            yield Record(number, values)

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
            case _:
                raise ValueError(f"a target is a number, a string, true or false, not {json.dumps(value)[:80]}")
