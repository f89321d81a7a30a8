"""Text files of rows, JSON Lines and CSV. They are read twice: for splits and types of targets, then for values."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chat import TOOLS_COLUMN, check_answer_kind, check_chats
from service.formats.chunk import (
    CHUNK_BYTES,
    MAX_COLUMNS,
    SPLIT_COLUMN,
    Chunk,
    ChunkInputs,
    ColumnSelection,
    TargetValues,
    check_columns,
    check_num_splits,
    check_split_name,
    divide,
)
from service.formats.pair import paired
from service.formats.targets.label import BOOLEANS, HOW_TO_NUMBER, class_indices
from service.formats.text import check_texts
from service.formats.words import check_tokens
from service.spec.data import Column
from service.spec.tasks import InputColumnKind, TargetKind
from service.spec.warning_message import WarningMessage

Scalar = bool | int | float | str | list[Any]
"""One value, or a list of several."""
_MOST_ROWS_AT_ONCE = 1024
_LEAST_INT64, _MOST_INT64 = -(2**63), 2**63 - 1
_DTYPES: dict[type[Scalar], str] = {bool: "boolean", int: "int64", float: "float64", str: "string", list: "list"}


class Record(NamedTuple):
    """One row."""

    line: int
    """The line on which the row begins, from 1."""
    values: Mapping[str, object]


@dataclass
class BlankLines:
    """The blank lines between the rows of a file; those behind the last row are none."""

    first_line: int = 0
    count: int = 0
    _held: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self._held.append(line)

    def end_at_row(self) -> None:
        """Counts the lines that were added, as a row follows them."""
        if self._held:
            self.first_line = self.first_line or self._held[0]
            self.count += len(self._held)
            self._held.clear()


class Records(Protocol):
    """The rows of a file; it can be iterated several times."""

    is_typed: bool
    """Whether the format distinguishes numbers from strings of digits."""
    columns: dict[str, str]
    """The type of each column in the first row."""
    hint: str
    """Added to the message about a missing column."""
    blank: "BlankLines"
    """The blank lines of the last iteration."""

    def __iter__(self) -> Iterator[Record]: ...

    def types(self, record: Record) -> dict[str, str]:
        """The type of each value of a row."""

    def scalar(self, value: object) -> Scalar | None:
        """Converts the value of a target, None if it is missing. Raises ValueError if it cannot be a target."""


class RecordTable:
    """An open file of rows; see :class:`service.formats.chunk.DataTable`."""

    def __init__(self, records: Records, selection: ColumnSelection) -> None:
        self._records, self._selection = records, selection
        self.warnings: list[WarningMessage] = []
        self._columns = dict(records.columns)
        check_columns(selection.without(selection.target_columns), list(self._columns), hint=records.hint)
        # "null" too: if the first row has no split, the rows of test must still not end up in train.
        self._splits_named = SPLIT_COLUMN not in selection.columns and records.columns.get(SPLIT_COLUMN) in ("string", "null")
        are_lists = selection.reads_words and records.columns[selection.input_column] == "list"
        self._input_kind: InputColumnKind = "tokens" if are_lists else "text"
        if selection.reads_chats and records.columns[selection.input_column] == "list":
            self._input_kind = "messages"
        self._types: dict[str, type[Scalar]] = {}
        self.splits = self._scan()
        if blank := records.blank.count:
            message = f"{blank:,} blank lines are left out (the first: line {records.blank.first_line})"
            self.warnings.append(WarningMessage(code="blank_lines", message=message))
        self.lacking = check_columns(selection, list(self._columns), hint=records.hint)
        self._selection = selection.without(self.lacking)
        self.targets = {column: self._kind(column) for column in self._selection.target_columns}
        self.class_names = {column: list(BOOLEANS) for column in self.targets if self._types.get(column) is bool}

    def __enter__(self) -> "RecordTable":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def columns(self) -> dict[str, Column]:
        found: dict[str, Column] = {}
        for name, dtype in self._columns.items():
            if name in self._selection.inputs:
                found[name] = Column(
                    kind=self._input_kind, dtype="list" if self._input_kind in ("tokens", "messages") else "string"
                )
            elif name in self.targets:
                found[name] = Column(kind=self.targets[name], dtype=_DTYPES[self._types[name]] if name in self._types else "list")
            else:
                found[name] = Column(kind="other", dtype=dtype)
        return found

    def chunks(self) -> Iterator[Chunk]:
        first_row, held, size = 0, list[Record](), 0
        for record in self._records:
            held.append(record)
            size += sum(len(str(self._value(record, column))) for column in self._selection.inputs)
            if size > CHUNK_BYTES or len(held) == _MOST_ROWS_AT_ONCE:
                yield from self._chunks_of(held, first_row=first_row)
                first_row, held, size = first_row + len(held), [], 0
        if held:
            yield from self._chunks_of(held, first_row=first_row)

    def _scan(self) -> dict[str, int]:
        """Counts the rows of each split, and determines the types of the targets on the way."""
        counts: Counter[str] = Counter()
        has_scalars = not (self._selection.has_answers or self._selection.reads_words)
        seen = {column: _Seen() for column in self._selection.target_columns if has_scalars}
        for record in self._records:
            if not record.values.keys() <= self._columns.keys():
                self._add_columns(record)
            counts[self._split(record)] += 1
            check_num_splits(len(counts))
            for column, types in seen.items():
                types.add(self._scalar(record, column), line=record.line)
        if not counts:
            raise InvalidFile("the file has no rows")
        self._types = dict.fromkeys(self._selection.target_columns if self._selection.has_answers else (), str)
        self._types |= {column: types.settle(column, is_typed=self._records.is_typed) for column, types in seen.items()}
        return dict(counts)

    def _add_columns(self, record: Record) -> None:
        """Adds the columns that no row before this one has."""
        for name, dtype in self._records.types(record).items():
            self._columns.setdefault(name, dtype)
        if len(self._columns) > MAX_COLUMNS:
            check_columns(self._selection, list(self._columns), hint=self._records.hint)
        is_late = SPLIT_COLUMN in record.values and SPLIT_COLUMN not in self._records.columns
        if is_late and SPLIT_COLUMN not in self._selection.columns:
            raise InvalidFile(
                f"line {record.line} has a {SPLIT_COLUMN!r} and the rows before it have none; give every row one, or rename it"
            )

    def _kind(self, column: str) -> TargetKind:
        if self._selection.has_answers:
            return check_answer_kind(column, "messages" if self._columns[column] == "list" else "text", self._input_kind)
        if self._selection.reads_words:
            return self._selection.word_targets(self._input_kind)
        if self._types[column] is list:
            return "labels"
        return "number" if self._types[column] is float else "label"

    def _chunks_of(self, held: Sequence[Record], *, first_row: int) -> Iterator[Chunk]:
        check: Callable[..., ChunkInputs] = check_texts
        match self._input_kind:
            case "tokens":
                check = check_tokens
            case "messages":
                check = partial(check_chats, tools=[record.values.get(TOOLS_COLUMN) for record in held])

        def read(column: str) -> ChunkInputs:
            return check([self._value(record, column) for record in held], place=lambda index: _place(column, held[index]))

        yield from divide(
            [self._split(record) for record in held] if self._splits_named else None,
            rows=np.arange(first_row, first_row + len(held), dtype=np.int64),
            lines=np.array([record.line for record in held], dtype=np.int64),
            inputs=paired([read(column) for column in self._selection.inputs]),
            targets={column: self._target(column, held) for column in self.targets},
        )

    def _target(self, column: str, held: Sequence[Record]) -> TargetValues:
        if self.targets[column] == "text":
            return [self._value(record, column) for record in held]
        if self.targets[column] == "messages":
            answers = [self._value(record, column) for record in held]
            return check_chats(answers, place=lambda index: _place(column, held[index]))
        if self._selection.reads_words:
            return [record.values.get(column) for record in held]
        values = [self._scalar(record, column) for record in held]
        if self._types[column] is list:
            return values
        if self._types[column] is str:
            # As written: a class may be called 7 beside one called seven.
            return [None if value is None else str(held[row].values[column]) for row, value in enumerate(values)]
        if self._types[column] is float:
            return np.array([_as_float(value) for value in values])
        return _as_indices(values, column=column, held=held)

    def _scalar(self, record: Record, column: str) -> Scalar | None:
        try:
            return self._records.scalar(record.values.get(column))
        except ValueError as error:
            raise InvalidFile(f"{_place(column, record)}: {error}") from error

    def _split(self, record: Record) -> str:
        if not self._splits_named:
            return "train"
        split = self._value(record, SPLIT_COLUMN)
        if not isinstance(split, str) or not split:
            raise InvalidFile(f"{_place(SPLIT_COLUMN, record)}: there is no name of a split; fill it or drop the row")
        return check_split_name(split)

    def _value(self, record: Record, column: str) -> object:
        if column not in record.values:
            there = ", ".join(repr(name)[:80] for name in list(record.values)[:20])
            raise InvalidFile(f"line {record.line} has no {column!r}, it has {there or 'nothing'}; give it one or drop the row")
        return record.values[column]


@dataclass
class _Seen:
    """The types among a column's values, each with the first line on which it occurs."""

    lines: dict[type[Scalar], int] = field(default_factory=dict)

    def add(self, value: Scalar | None, *, line: int) -> None:
        # NaN in a CSV is a missing value among numbers and a word among words, so it tells no type.
        if value is not None and value == value:
            self.lines.setdefault(type(value), line)

    def settle(self, column: str, *, is_typed: bool) -> type[Scalar]:
        kinds = {float if type_ is int else type_ for type_ in self.lines}
        if len(kinds) < 2:
            return float if float in self.lines else next(iter(self.lines), int)
        if is_typed:
            (one, first_line), *others = sorted(self.lines.items(), key=lambda item: item[1])
            other, line = next((type_, line) for type_, line in others if _TYPE_WORDS[type_] != _TYPE_WORDS[one])
            raise InvalidFile(
                f"column {column!r} is {_TYPE_WORDS[one]} on line {first_line} and {_TYPE_WORDS[other]} on line {line}; write "
                "all as strings (names of classes), or all as numbers"
            )
        return str


_TYPE_WORDS: dict[type[Scalar], str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}


def _is_missing(value: Scalar | None) -> bool:
    return value is None or value != value


def _as_float(value: Scalar | None) -> float:
    if value is None:
        return math.nan
    try:
        return float(cast(float, value))
    except OverflowError:
        return math.inf


def _as_indices(values: Sequence[Scalar | None], *, column: str, held: Sequence[Record]) -> NDArray[np.int64]:
    integers = [0 if _is_missing(value) else int(cast(int, value)) for value in values]
    for value, record in zip(integers, held, strict=True):
        if not _LEAST_INT64 <= value <= _MOST_INT64:
            raise InvalidFile(f"{_place(column, record)}: the label is beyond 64 bits; {HOW_TO_NUMBER}")
    is_missing = np.array([_is_missing(value) for value in values])
    return class_indices(
        np.array(integers, dtype=np.int64), is_missing=is_missing, place=lambda index: _place(column, held[index])
    )


def _place(column: str, record: Record) -> str:
    return f"column {column!r}, line {record.line}"
