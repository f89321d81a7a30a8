"""Rows of a mapped file are read whatever their place in its pages; what is asked for is whole pages of the file, each once."""

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from worker.data.disk.mapping import MappedBatches, runs_of_pages

PAGE = mmap.PAGESIZE


@pytest.mark.parametrize(
    ("ranges", "runs"),
    [
        ([(0, 10)], []),
        ([(PAGE - 1, PAGE + 1)], [(0, 2 * PAGE)]),
        ([(3 * PAGE, 5 * PAGE), (0, 2 * PAGE)], [(0, 2 * PAGE), (3 * PAGE, 5 * PAGE)]),
        ([(10, PAGE), (PAGE, 2 * PAGE), (2 * PAGE + 5, 2 * PAGE + 9)], [(0, 3 * PAGE)]),
        ([(0, 4 * PAGE), (PAGE, PAGE + 1), (3 * PAGE, 5 * PAGE)], [(0, 5 * PAGE)]),
        ([(7, 7)], []),
    ],
    ids=["one page", "over a border", "two, in any order", "that adjoin", "one in another", "nothing"],
)
def test_ranges_are_asked_for_by_their_pages(ranges: list[tuple[int, int]], runs: list[tuple[int, int]]) -> None:
    starts, ends = np.array(ranges).T
    assert list(runs_of_pages(starts, ends)) == runs


def test_rows_of_every_batch_are_read_from_the_columns_that_there_are(tmp_path: Path) -> None:
    texts = [f"{row} " * (row * 400) for row in range(12)]  # of many pages, of one, and of none
    table = pa.table({"text": pa.array(texts, pa.large_string()), "number": list(range(12))})
    with pa.ipc.new_file(str(tmp_path / "shard.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    with (tmp_path / "shard.arrow").open("rb") as file:
        batches = MappedBatches(file)
    assert batches.ends.tolist() == [5, 10, 12]
    read = batches.take(1, np.array([4, 0, 4]), ["text", "absent"])
    assert read.to_pydict() == {"text": [texts[9], texts[5], texts[9]]}
