"""Files mapped into memory of which rows are read here and there: the system reads the pages that are asked for, and no others.

By itself it reads what lies around a page that is missing, on some hosts megabytes: for each row of a shuffled epoch once more,
where memory does not keep it.
"""

import mmap
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_HAS_ADVICE = hasattr(mmap, "MADV_RANDOM")


def mapped_file(file: BinaryIO) -> mmap.mmap:
    """Maps a file that is not empty, for reading."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if _HAS_ADVICE:
        mapped.madvise(mmap.MADV_RANDOM)
    return mapped


class MappedBatches:
    """The record batches of an Arrow file."""

    def __init__(self, file: BinaryIO) -> None:
        self._mapped = mapped_file(file)
        buffer = pa.py_buffer(self._mapped)
        self._address = buffer.address
        opened = pa.ipc.open_file(buffer)
        self.schema: pa.Schema = opened.schema
        self._batches = [opened.get_batch(number) for number in range(opened.num_record_batches)]
        self.ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)
        """The number of rows up to the end of each batch."""

    def take(self, number: int, rows: NDArray[np.int64], names: list[str]) -> pa.RecordBatch:
        """Reads rows of a batch, ``rows`` counted within it, and of the columns ``names`` those that there are."""
        batch = self._batches[number].select([name for name in names if name in self.schema.names])
        if _HAS_ADVICE:
            for column in batch.columns:
                self._ask_for(column, rows)
        return batch.take(pa.array(rows))

    def _ask_for(self, column: pa.Array, rows: NDArray[np.int64]) -> None:
        """Has the system read what large values take, all at once and not page by page."""
        kind, buffers = column.type, column.buffers()
        if pa.types.is_fixed_size_binary(kind):
            starts, ends = rows * kind.byte_width, (rows + 1) * kind.byte_width
        elif pa.types.is_large_binary(kind) or pa.types.is_large_string(kind):
            offsets = np.frombuffer(buffers[1], dtype=np.int64)
            starts, ends = offsets[rows], offsets[rows + 1]
        else:
            return
        begin = buffers[-1].address - self._address
        for first, last in runs_of_pages(begin + starts, begin + ends):
            self._mapped.madvise(mmap.MADV_WILLNEED, first, last - first)


def runs_of_pages(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The pages of some ranges of bytes, those that adjoin as one run; none of one page, which is read as it is needed."""
    order = np.argsort(starts)
    first = starts[order] // mmap.PAGESIZE
    last = np.maximum.accumulate(-(-ends[order] // mmap.PAGESIZE))
    is_first = np.append(True, first[1:] > last[:-1])
    runs = zip(first[is_first].tolist(), last[np.append(is_first[1:], True)].tolist(), strict=True)
    return ((begin * mmap.PAGESIZE, end * mmap.PAGESIZE) for begin, end in runs if end - begin > 1)
