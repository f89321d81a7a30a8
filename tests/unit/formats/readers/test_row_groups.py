"""Parquet files of a few kilobytes whose rows take any memory: read in small batches, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.formats.readers.row_groups import RowGroups
from tests.unit.formats.files import refusal, write_parquet

LARGE = "a" * 2**20
NUM_ROWS = 80
COLUMNS = {
    "text": [None, *[LARGE] * (NUM_ROWS - 1)],
    "file": [None, *[{"bytes": LARGE.encode(), "path": "a"}] * (NUM_ROWS - 1)],
    "words": [None, [], *[[LARGE, "a"]] * (NUM_ROWS - 2)],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_value_that_many_rows_name_is_read_a_few_times_at_once(tmp_path: Path, name: str) -> None:
    column = pa.array(COLUMNS[name])
    path = write_parquet(tmp_path / "a.parquet", {name: column}, dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 2**20
    rows = RowGroups(path)
    assert max(batch.num_rows for batch in rows.batches([name], rows_at_once=256)) <= 64
    rows.close()


@pytest.mark.parametrize("as_file", [False, True])
def test_usual_rows_are_read_as_many_at_once_as_are_asked_for(tmp_path: Path, as_file: bool) -> None:
    texts = [f"row {row}" * 100 for row in range(2000)]
    column = [{"bytes": text.encode()} for text in texts] if as_file else texts
    rows = RowGroups(write_parquet(tmp_path / "a.parquet", {"a": column}, row_group_size=1000))
    assert [batch.num_rows for batch in rows.batches(["a"], rows_at_once=600)] == [600, 400, 600, 400]
    rows.close()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_lists_of_far_more_numbers_than_the_file_has_bits_are_refused(tmp_path: Path, dtype: Any) -> None:
    numbers = pa.array(np.zeros(2**25 + 1, dtype=dtype))
    column = pa.LargeListArray.from_arrays(pa.array([0, len(numbers)], pa.int64()), numbers)
    path = write_parquet(tmp_path / "a.parquet", {"image": column, "label": [0]})
    assert "far more than the file's own size" in refusal(path)
