"""Reads a folder of shards as any other dataset file; see :mod:`service.formats.shards.index`."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InvalidFile
from service.formats.chunk import Chunk, ColumnSelection, check_columns
from service.formats.shards.index import ARROW, LINE, ROW, read_index, shard_path
from service.formats.shards.values import read_inputs, read_target
from service.formats.shards.writer import ROW_GROUP_BYTES
from service.spec.data import Column
from service.spec.tasks import TASKS
from service.spec.warning_message import WarningMessage

_MOST_ROWS_AT_ONCE = 1024


class ShardTable:
    """An open folder of shards; see :class:`service.formats.chunk.DataTable`. Fewer targets may be selected than it has."""

    def __init__(self, folder: Path, selection: ColumnSelection) -> None:
        self._folder, self._index = folder, read_index(folder)
        self.lacking = check_columns(selection, list(self._index.columns))
        kept = {*self._index.targets, *self.lacking}
        for column in selection.target_columns:
            if column not in kept:
                how = f"upload the file again with target_column={column}"
                raise InvalidFile(f"column {column!r} was not kept as a target: {how}")
        for column in selection.inputs:
            if column not in self._index.input:
                how = f"upload the file again with input_column={','.join(selection.inputs)}"
                raise InvalidFile(f"column {column!r} was not kept as the input: {how}")
            held, read = self._index.columns[column].kind, TASKS[selection.task].input_columns
            if held not in read:
                raise InvalidFile(f"column {column!r} holds {held}; for {selection.task} it holds {' or '.join(read)}")
        self._selection = selection = selection.without(self.lacking)
        self._leaves_inputs = selection.leaves_inputs and not selection.reads_words  # without words there are no tags
        self.targets = {column: self._index.targets[column] for column in selection.target_columns}
        self.class_names = {column: names for column, names in self._index.class_names.items() if column in self.targets}
        self.splits = {name: split.rows for name, split in self._index.splits.items()}
        self.warnings: list[WarningMessage] = list(self._index.warnings)

    def __enter__(self) -> "ShardTable":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def columns(self) -> dict[str, Column]:
        unselected = self._index.targets.keys() - self.targets.keys()
        return {
            name: column.model_copy(update={"kind": "other"}) if name in unselected else column
            for name, column in self._index.columns.items()
        }

    def chunks(self) -> Iterator[Chunk]:
        for split, shards in self._index.splits.items():
            for name in shards.shards:
                for batch in _batches(shard_path(self._folder, name)):
                    yield Chunk(
                        split=split,
                        rows=batch.column(ROW).to_numpy(),
                        inputs=[] if self._leaves_inputs else read_inputs(self._selection.inputs, batch),
                        targets={column: read_target(column, batch) for column in self.targets},
                        lines=batch.column(LINE).to_numpy() if LINE in batch.schema.names else None,
                    )


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of one shard, some at a time. Raises InvalidFile if it is damaged."""
    try:
        yield from _read(path)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise InvalidFile(f"shard {path.name} is damaged or gone: {str(error)[:200]}") from error


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix == ARROW:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                for start in range(0, batch.num_rows, _MOST_ROWS_AT_ONCE):
                    yield batch.slice(start, _MOST_ROWS_AT_ONCE)
        return
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            rows_at_once = max(1, metadata.num_rows * ROW_GROUP_BYTES // max(metadata.total_byte_size, 1))
            yield from file.iter_batches(batch_size=min(rows_at_once, _MOST_ROWS_AT_ONCE), row_groups=[group], use_threads=False)
