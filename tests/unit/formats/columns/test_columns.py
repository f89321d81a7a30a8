"""What holds for the columns of every file of rows."""

from pathlib import Path
from typing import Any

from tests.unit.formats.files import refusal, write_jsonl, write_parquet


def test_a_file_of_thousands_of_columns_is_refused(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"text": ["a", "b"], "label": [0, 1], **{f"x{index}": [0, 1] for index in range(2000)}}
    words = "the file has 2,002 columns; at most 2,000 may be"
    assert words in refusal(write_parquet(tmp_path / "a.parquet", columns), task="text-classification")
    rows = [{name: values[row] for name, values in columns.items()} for row in range(2)]
    assert words in refusal(write_jsonl(tmp_path / "a.jsonl", rows), task="text-classification")
