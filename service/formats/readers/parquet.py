"""Parquet: an input column, target columns, and an optional ``split`` column, read batch by batch.

A target of integers, strings or booleans is a label, one of floats a number; for a ``causal-lm`` it is text, beside an input of
words or of texts that are read as words a list. ``a.b`` names a field of a struct.
Invariant: only a few rows are in memory at once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chat import TOOLS_COLUMN, check_answer_kind
from service.formats.chunk import (
    SPLIT_COLUMN,
    Chunk,
    ColumnSelection,
    ReadInputs,
    TargetValues,
    check_columns,
    check_num_splits,
    check_split_name,
    divide,
)
from service.formats.columns.arrow import (
    check_batch,
    is_list,
    is_string,
    plain,
    plain_type,
    strings,
    type_name,
    where_null,
    whole_strings,
)
from service.formats.columns.audio import AudioColumn
from service.formats.columns.image import ImageColumn
from service.formats.columns.messages import MESSAGES_FIELD, MessagesColumn, chats_of
from service.formats.columns.nested import column_of, nested_columns, nested_type
from service.formats.columns.text import TextColumn
from service.formats.columns.tokens import TokensColumn, check_list_type, feature_names, named_tags
from service.formats.pair import paired
from service.formats.readers.row_groups import RowGroups
from service.formats.targets.label import BOOLEANS, MAX_CLASSES, class_indices
from service.spec.data import Column
from service.spec.tasks import InputColumnKind, TargetKind
from service.spec.warning_message import WarningMessage

# Arrow reports a broken file as one of its own errors, most of them also a ValueError, or as an OSError.
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, KeyError, IndexError, TypeError)


class InputColumn(Protocol):
    """Reads an Arrow column as inputs of the networks."""

    rows_at_once: int
    """The most rows to read at once."""

    def read(self, column: pa.Array, *, first_row: int) -> ReadInputs:
        """Converts some rows, broken files to None where they are left out; ``first_row`` is the number of the first, for
        messages. Raises InvalidFile."""

    def warnings(self) -> list[WarningMessage]:
        """What of the inputs is left out or not read, once all rows were read. Raises InvalidFile if they cannot be used."""

    def describe(self) -> Column:
        """The description of the column."""


class OpenInputColumn(Protocol):
    """Creates an :class:`InputColumn`; ``first`` is the first row of the file, which determines the shape of all."""

    def __call__(
        self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int, skip_broken: bool
    ) -> InputColumn: ...


INPUT_COLUMNS: dict[InputColumnKind, OpenInputColumn] = {
    "image": ImageColumn,
    "text": TextColumn,
    "audio": AudioColumn,
    "tokens": TokensColumn,
    "messages": MessagesColumn,
}


class ParquetTable:
    """An open Parquet file; see :class:`service.formats.chunk.DataTable`."""

    def __init__(self, path: Path, selection: ColumnSelection) -> None:
        self.warnings: list[WarningMessage] = []
        try:
            self._file = RowGroups(path)
            self._schema = _schema(self._file.schema, selection)
            self._num_rows = self._file.num_rows
        except _BROKEN as error:
            raise InvalidFile(f"the Parquet file is broken or cut off: {str(error)[:200]}") from error
        try:
            self.lacking = check_columns(selection, self._schema.names)
            self._selection = selection = selection.without(self.lacking)
            self.targets = {column: self._target_kind(column) for column in selection.target_columns}
            if self._num_rows == 0:
                raise InvalidFile("the file has no rows")
            self._splits_named = SPLIT_COLUMN not in selection.columns and (
                SPLIT_COLUMN in self._schema.names and is_string(self._schema.field(SPLIT_COLUMN).type)
            )
            named = {column: self._class_names(column) for column in selection.target_columns}
            self.class_names = {column: names for column, names in named.items() if names is not None}
            self.splits = self._count_splits()
            self._inputs = {name: self._open_input(name) for name in selection.inputs}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ParquetTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def columns(self) -> dict[str, Column]:
        found: dict[str, Column] = {}
        for field in self._schema:
            if field.name in self._inputs:
                found[field.name] = self._inputs[field.name].describe()
            else:
                found[field.name] = Column(kind=self.targets.get(field.name, "other"), dtype=type_name(field.type))
        return found

    def chunks(self) -> Iterator[Chunk]:
        names = [*self._selection.columns, *([SPLIT_COLUMN] if self._splits_named else [])]
        names += [TOOLS_COLUMN] if self._has_tools else []
        for first_row, batch in self._batches(names, rows_at_once=self._inputs[self._selection.input_column].rows_at_once):
            splits = None
            if self._splits_named:
                splits = whole_strings(batch.column(SPLIT_COLUMN), name=SPLIT_COLUMN, first_row=first_row)
            yield from divide(
                splits,
                rows=np.arange(first_row, first_row + batch.num_rows, dtype=np.int64),
                inputs=self._read_inputs(batch, first_row=first_row),
                targets={name: self._target(batch.column(name), name, first_row=first_row) for name in self.targets},
            )
        self.warnings += [warning for column in self._inputs.values() for warning in column.warnings()]

    def _batches(self, names: Sequence[str], *, rows_at_once: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields each batch with the number of its first row."""
        first_row = 0
        try:
            for batch in self._file.batches(names, rows_at_once=rows_at_once):
                check_batch(batch, first_row=first_row)
                columns = [plain(column_of(batch, name)) for name in names]
                yield first_row, pa.RecordBatch.from_arrays(columns, names=list(names))
                first_row += batch.num_rows
        except _BROKEN as error:
            raise InvalidFile(f"the Parquet file is broken: {str(error)[:200]}") from error
        if first_row < self._num_rows:
            raise InvalidFile(f"the Parquet file is broken: it declares {self._num_rows} rows and holds {first_row}")

    @property
    def _has_tools(self) -> bool:
        return (
            self._input_kind == "messages" and TOOLS_COLUMN in self._schema.names and TOOLS_COLUMN not in self._selection.columns
        )

    def _read_inputs(self, batch: pa.RecordBatch, *, first_row: int) -> ReadInputs:
        return paired([column.read(self._input_of(batch, name), first_row=first_row) for name, column in self._inputs.items()])

    def _input_of(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """An input of a batch; with tools, a struct of chats and tools."""
        inputs = batch.column(name)
        if not self._has_tools:
            return inputs
        return pa.StructArray.from_arrays([inputs, batch.column(TOOLS_COLUMN)], [MESSAGES_FIELD, TOOLS_COLUMN])

    @property
    def _input_kind(self) -> InputColumnKind:
        """The kind of the input column, by its type where the task has several."""
        if self._selection.reads_words:
            return "tokens" if is_list(self._schema.field(self._selection.input_column).type) else "text"
        if self._selection.reads_chats and is_list(self._schema.field(self._selection.input_column).type):
            return "messages"
        return self._selection.input_kind

    def _target_kind(self, column: str) -> TargetKind:
        type_ = self._schema.field(column).type
        found = f"column {column!r} is of {type_name(type_)}"
        if self._selection.has_answers:
            if not is_string(type_) and not is_list(type_):
                raise InvalidFile(f"{found}; the answers of a {self._selection.task} are strings: name another column, or none")
            return check_answer_kind(column, "messages" if is_list(type_) else "text", self._input_kind)
        if self._selection.reads_words:
            kind = self._selection.word_targets(self._input_kind)
            check_list_type(column, type_, kind, has_names=self._class_names(column) is not None)
            return kind
        if pa.types.is_integer(type_) or is_string(type_) or pa.types.is_boolean(type_) or pa.types.is_null(type_):
            return "label"
        if pa.types.is_floating(type_):
            return "number"
        if is_list(type_) and _may_be_listed(type_.value_type):
            return "labels"
        raise InvalidFile(
            f"{found}; labels are integers from 0, strings, booleans or lists, numbers are floats: cast it to one of these"
        )

    def _class_names(self, column: str) -> list[str] | None:
        """The class names in the metadata of Hugging Face's datasets, for a label column of integers; those of booleans."""
        if pa.types.is_boolean(self._schema.field(column).type):
            return list(BOOLEANS)
        type_ = self._schema.field(column).type
        if not pa.types.is_integer(type_.value_type if is_list(type_) else type_):
            return None
        try:
            names = feature_names((self._schema.metadata or {})[b"huggingface"], column)
        except (KeyError, IndexError, TypeError, ValueError, RecursionError):
            return None
        usable = isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        return names if usable and 2 <= len(names) <= MAX_CLASSES else None

    def _count_splits(self) -> dict[str, int]:
        if not self._splits_named:
            return {"train": self._num_rows}
        counts: Counter[str] = Counter()
        for first_row, batch in self._batches([SPLIT_COLUMN], rows_at_once=65_536):
            counts.update(whole_strings(batch.column(SPLIT_COLUMN), name=SPLIT_COLUMN, first_row=first_row))
            check_num_splits(len(counts))
        return {check_split_name(name): count for name, count in counts.items()}

    def _open_input(self, name: str) -> InputColumn:
        for _, batch in self._batches([name], rows_at_once=1):
            return INPUT_COLUMNS[self._input_kind](
                name,
                batch.column(0),
                num_rows=self._num_rows,
                max_unpacked_bytes=self._selection.max_unpacked_bytes,
                skip_broken=self._selection.skip_broken,
            )
        raise InvalidFile("the Parquet file is broken: it declares rows and holds none")

    def _target(self, column: pa.Array, name: str, *, first_row: int) -> TargetValues:
        if self._selection.reads_words:
            rows: list[Any] = column.to_pylist()
            names = self.class_names.get(name)
            return rows if names is None else named_tags(rows, names, name=name, first_row=first_row)
        if self.targets[name] == "messages":
            return chats_of(column, place=f"column {name!r}", first_row=first_row)
        if self.targets[name] == "labels":
            lists: list[Any] = column.to_pylist()
            return lists
        if is_string(column.type):
            texts = strings(column)
            return texts if self.targets[name] == "text" else [text if text and not text.isspace() else None for text in texts]
        if pa.types.is_null(column.type):
            return np.full(len(column), -1, dtype=np.int64)
        is_missing = where_null(column)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        if self.targets[name] == "label":
            return class_indices(values, is_missing=is_missing, place=lambda index: f"column {name!r}, row {first_row + index}")
        numbers: NDArray[np.float64] = values.astype(np.float64)
        numbers[is_missing] = np.nan
        return numbers


def _may_be_listed(type_: pa.DataType) -> bool:
    """Whether lists of this type may hold classes, or their probabilities."""
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    return bool(is_number or is_string(type_) or pa.types.is_boolean(type_) or pa.types.is_null(type_))


def _schema(stored: pa.Schema, selection: ColumnSelection) -> pa.Schema:
    """The columns in their plain types, and the selected fields of others."""
    found = pa.schema([field.with_type(plain_type(field.type)) for field in stored], metadata=stored.metadata)
    for name in nested_columns(selection):
        if (type_ := nested_type(found, name)) is not None:
            found = found.append(pa.field(name, type_))
    return found
