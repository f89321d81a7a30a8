"""The rows of a Parquet file in batches that fit in memory: a few kilobytes of it may unpack to any size.

Invariant: pages and lists unpack to no more than the file's size allows, and of values that stand once in a file's dictionary and
are named by many rows, only so many rows are read at once. The sizes are those that the file declares.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import InvalidFile
from service.formats.columns.arrow import is_binary, is_list, is_string

_BUFFER_BYTES = 2**20
_MOST_BATCH_BYTES = 64 * 2**20
_LEAST_ALLOWANCE_BYTES = 2**28
_MAX_RATIO = 200
"""Numbers take a bit each at least, unless nearly all are equal."""
_NUMBER_BYTES = 8
_PROBED_ROWS = 1024
_BY_DICTIONARY = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}


class RowGroups:
    """An open Parquet file. Raises what Arrow raises if it is broken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # By default Arrow keeps all that it has read of a file, and of a row group at least a whole column.
        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        self._leaves: list[str] = [self._file.schema.column(index).path for index in range(len(self._file.schema))]
        self.schema: pa.Schema = self._file.schema_arrow
        self.num_rows: int = self._file.metadata.num_rows

    def close(self) -> None:
        self._file.close()

    def batches(self, columns: Sequence[str], *, rows_at_once: int) -> Iterator[pa.RecordBatch]:
        """Yields all rows of some columns, or of fields of columns. Raises InvalidFile if they unpack to far too much."""
        leaves = [
            index
            for index, leaf in enumerate(self._leaves)
            if any(leaf == name or leaf.startswith(f"{name}.") for name in columns)
        ]
        unpacked, allowance = 0, max(_LEAST_ALLOWANCE_BYTES, _MAX_RATIO * self._path.stat().st_size)
        for group in range(self._file.num_row_groups):
            # Arrow aborts the process where it is asked about a column whose description is damaged, and reports it in reading.
            next(self._file.iter_batches(batch_size=1, row_groups=[group], columns=list(columns), use_threads=False), None)
            unpacked += sum(self._unpacked(group, leaf) for leaf in leaves)
            if unpacked > allowance:
                raise InvalidFile(
                    f"the first {unpacked:,} bytes of its rows are far more than the file's own size; that is refused: write it "
                    "with compression=None, use_dictionary=False"
                )
            at_once = self._rows_at_once(group, leaves, rows_at_once)
            yield from self._file.iter_batches(batch_size=at_once, row_groups=[group], columns=list(columns), use_threads=False)

    def _unpacked(self, group: int, leaf: int) -> int:
        """The bytes of the pages of a row group's leaf, or of its numbers if they are in lists."""
        pages, described = self._file.metadata.row_group(group).column(leaf), self._file.schema.column(leaf)
        are_numbers = described.max_repetition_level and described.physical_type != "BYTE_ARRAY"
        return int(max(pages.total_uncompressed_size, _NUMBER_BYTES * pages.num_values if are_numbers else 0))

    def _rows_at_once(self, group: int, leaves: Sequence[int], most: int) -> int:
        """How many rows of a row group are read at once, ``most`` at most."""
        metadata = self._file.metadata.row_group(group)
        for leaf in leaves:
            pages = metadata.column(leaf)
            if _BY_DICTIONARY.isdisjoint(pages.encodings) or most * pages.total_uncompressed_size <= _MOST_BATCH_BYTES:
                continue  # no value is longer than all pages
            values_a_row = max(1, pages.num_values // max(metadata.num_rows, 1))
            longest = self._longest_value(group, self._leaves[leaf])
            most = max(1, min(most, _MOST_BATCH_BYTES // max(values_a_row * longest, 1)))
        return most

    def _longest_value(self, group: int, leaf: str) -> int:
        """The bytes of the longest value in the dictionary of a row group, which is read with its first value."""
        with pq.ParquetFile(self._path, read_dictionary=[leaf], pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            for batch in file.iter_batches(batch_size=_PROBED_ROWS, row_groups=[group], columns=[leaf], use_threads=False):
                if len(values := _dictionary(batch.column(0))):
                    return int(pc.max(pc.binary_length(values)).as_py() or 0)
        return 0


def _dictionary(column: pa.Array) -> pa.Array:
    """The dictionary of an array of one leaf; empty for one without."""
    while pa.types.is_struct(column.type) or is_list(column.type):
        column = column.field(0) if pa.types.is_struct(column.type) else column.values
    values = column.dictionary if pa.types.is_dictionary(column.type) else column[:0]
    return values if is_string(values.type) or is_binary(values.type) else pa.array([], pa.binary())
