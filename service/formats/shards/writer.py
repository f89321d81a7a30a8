"""Writes chunks into a folder of shards, see :mod:`service.formats.shards.index`; a few MB of each split are in memory."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.formats.chunk import Chunk, ColumnSelection, DataTable
from service.formats.shards.index import HASH, INDEX_FILE, LINE, PARQUET, ROW, ShardIndex, SplitShards
from service.formats.shards.values import Fields, input_fields, target_field

SHARD_BYTES = 64 * 2**20
ROW_GROUP_BYTES = 8 * 2**20


class ShardWriter:
    """Writes the shards of all splits, and last the index: a folder without one is not whole."""

    def __init__(self, folder: Path, table: DataTable, selection: ColumnSelection) -> None:
        self._folder, self._table, self._selection = folder, table, selection
        self._splits: dict[str, _SplitWriter] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, chunk: Chunk, digests: pa.Array, *, num_bytes: int) -> None:
        """Writes the rows of a chunk as they stand in the file, with their digests (N,) and their size decoded."""
        fields: Fields = [(pa.field(ROW, pa.int64()), pa.array(chunk.rows))]
        if chunk.lines is not None:
            fields.append((pa.field(LINE, pa.int64()), pa.array(chunk.lines)))
        fields.append((pa.field(HASH, digests.type), digests))
        fields += input_fields(self._selection.inputs, chunk.inputs)
        fields += [target_field(name, chunk.targets[name], kind) for name, kind in self._table.targets.items()]
        batch = pa.record_batch([array for _, array in fields], schema=pa.schema([field for field, _ in fields]))
        if chunk.split not in self._splits:
            self._splits[chunk.split] = _SplitWriter(self._folder, chunk.split)
        self._splits[chunk.split].add(batch, decoded_bytes=num_bytes)

    def finish(self) -> None:
        """Ends the shards and writes the index, once every row was added."""
        table = self._table
        index = ShardIndex(
            task=self._selection.task,
            input=list(self._selection.inputs),
            targets=table.targets,
            class_names=table.class_names,
            lacking=list(table.lacking),
            warnings=table.warnings,
            columns=table.columns(),
            splits={name: self._splits[name].finish() for name in table.splits},
        )
        (self._folder / INDEX_FILE).write_text(index.model_dump_json())

    def close(self) -> None:
        """Closes the files, of which there are some if it broke off."""
        for split in self._splits.values():
            split.close()


class _SplitWriter:
    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = self._shard_bytes = self._rows = self._decoded_bytes = 0
        self._names: list[str] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, batch: pa.RecordBatch, *, decoded_bytes: int) -> None:
        self._rows += batch.num_rows
        self._decoded_bytes += decoded_bytes
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes >= ROW_GROUP_BYTES:
            self._write_group()
        if self._shard_bytes >= SHARD_BYTES:
            self.close()

    def finish(self) -> SplitShards:
        self._write_group()
        self.close()
        return SplitShards(rows=self._rows, shards=self._names, bytes=self._decoded_bytes)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._shard_bytes = None, 0

    def _write_group(self) -> None:
        if not self._held:
            return
        group = pa.Table.from_batches(self._held)
        if self._writer is None:
            self._names.append(f"{self._split}-{len(self._names):05}{PARQUET}")
            plain = [field.name for field in group.schema if not pa.types.is_large_binary(field.type)]
            path = self._folder / self._names[-1]
            self._writer = pq.ParquetWriter(path, group.schema, compression="zstd", use_dictionary=False, write_statistics=plain)
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._shard_bytes += self._held_bytes
        self._held, self._held_bytes = [], 0
