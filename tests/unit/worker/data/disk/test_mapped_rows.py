"""Rows in mapped files are those that a tensor in memory would have."""

from pathlib import Path

import numpy as np
import torch

from worker.data.disk.mapped_rows import RowsWriter


def test_rows_are_read_as_they_were_written_padded_to_the_longest_of_all(tmp_path: Path) -> None:
    rows = torch.tensor([[5, 6, -1, -1], [7, -1, -1, -1], [1, 2, 3, 4], [-1, -1, -1, -1]])
    lengths = torch.tensor([2, 1, 4, 0])
    with RowsWriter(tmp_path, stored=np.int32, padding=-1, dtype=torch.int64) as writer:
        writer.add(rows[:2, :2], lengths[:2])
        writer.add(rows[2:], lengths[2:])
        mapped = writer.finish()

    assert mapped.shape == (4, 4)
    assert torch.equal(mapped.select(torch.tensor([2, 0, 0, 3, 1])), rows[[2, 0, 0, 3, 1]])
    assert torch.equal(mapped.narrow(1, 3).select(torch.tensor([1, 0])), rows[[2, 1]])
    assert not list(tmp_path.iterdir()), "the file ends with its readers"


def test_a_stream_is_cut_into_whole_rows(tmp_path: Path) -> None:
    with RowsWriter(tmp_path, stored=np.int32, padding=0, dtype=torch.int64) as writer:
        for start in range(0, 11, 4):
            writer.add_stream(range(start, min(start + 4, 11)))
        mapped = writer.finish_stream(5)

    assert mapped.shape == (2, 5)
    assert torch.equal(mapped.select(torch.arange(2)), torch.arange(10).view(2, 5))


def test_no_rows_are_none(tmp_path: Path) -> None:
    with RowsWriter(tmp_path, stored=np.uint8, padding=0, dtype=torch.bool) as writer:
        mapped = writer.finish()

    assert mapped.shape == (0, 0)
    assert mapped.select(torch.arange(0)).shape == (0, 0)


def test_rows_keep_the_width_of_what_of_them_is_padding(tmp_path: Path) -> None:
    rows = torch.tensor([[True, False, False], [False, True, False]])
    with RowsWriter(tmp_path, stored=np.uint8, padding=0, dtype=torch.bool) as writer:
        writer.add(rows, torch.tensor([1, 2]))
        mapped = writer.finish()

    assert torch.equal(mapped.select(torch.arange(2)), rows)
