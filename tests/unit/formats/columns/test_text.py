"""What is read from a Parquet file of texts, and what is refused with which words."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.errors import InvalidFile
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, target, write_parquet

TEXTS = ["ein Hund", "a dog", "żaba", "un chien"]
LABELS = [0, 1, 2, 1]
TASK: TaskName = "text-classification"


def as_text(raw: list[bytes], type_: pa.DataType) -> pa.Array:
    """Bytes that are taken for text, whatever they are."""
    offsets = [sum(map(len, raw[:index])) for index in range(len(raw) + 1)]
    width = pa.int64() if type_ == pa.large_string() else pa.int32()
    buffers = [None, pa.array(offsets, width).buffers()[1], pa.py_buffer(b"".join(raw))]
    return pa.Array.from_buffers(type_, len(raw), buffers)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_every_type_of_string_is_a_text(tmp_path: Path, type_: pa.DataType) -> None:
    columns = {"text": pa.array(TEXTS).cast(type_), "label": LABELS, "id": TEXTS}
    path = write_parquet(tmp_path / "a.parquet", columns)
    arrays = read(path, task=TASK)
    assert arrays.splits["train"].inputs == TEXTS
    assert target(arrays.splits["train"]) == LABELS
    kinds = {name: column.kind for name, column in inspect(path, task=TASK).columns.items()}
    assert kinds == {"text": "text", "label": "label", "id": "other"}


def test_a_split_column_divides_the_rows(tmp_path: Path) -> None:
    splits = ["train", "test", "train", "train"]
    arrays = read(write_parquet(tmp_path / "a.parquet", {"text": TEXTS, "label": [0, 1, 1, 0], "split": splits}), task=TASK)
    assert arrays.splits["train"].inputs == ["ein Hund", "żaba", "un chien"]
    assert arrays.splits["test"].inputs == ["a dog"]
    assert target(arrays.splits["train"]) == [0, 1, 0]


def test_a_file_of_many_batches_is_read_whole(tmp_path: Path) -> None:
    texts = [f"number {index}" for index in range(1000)]
    path = write_parquet(tmp_path / "a.parquet", {"text": texts, "label": [0, 1] * 500}, row_group_size=300)
    assert read(path, task=TASK).splits["train"].inputs == texts


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": [1, 2, 3, 4], "label": LABELS}, "column 'text' is of int64; texts are strings"),
        ({"text": [b"a"] * 4, "label": LABELS}, "column 'text' is of binary; texts are strings"),
        ({"text": ["a", None, "b", "c"], "label": LABELS}, "column 'text', row 1: there is no value"),
        ({"text": ["a", "b", " \n", "c"], "label": LABELS}, "column 'text', row 2: the text is empty"),
        ({"text": ["a", "b", "c", "d\0"], "label": LABELS}, "column 'text', row 3: the text holds a NUL"),
        ({"text": TEXTS, "label": ["a", "b\0", "a", "b"]}, "row 1: class 'b\\x00' holds a NUL"),
        ({"text": TEXTS, "label": LABELS, "\0": LABELS}, "holds a NUL"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert words in refusal(write_parquet(tmp_path / "a.parquet", columns), task=TASK)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_other_encodings_are_refused_with_their_row(tmp_path: Path, type_: pa.DataType) -> None:
    column = as_text([b"a", b"b", b"caf\xe9", b"d"], type_)
    path = write_parquet(tmp_path / "a.parquet", {"text": column, "label": LABELS})
    assert "column 'text', row 2: the text is no UTF-8; decode it anew" in refusal(path, task=TASK)


def test_few_bytes_that_become_many_texts_are_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["x" * 100_000] * 1000, "label": [0, 1] * 500})
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InvalidFile, match="unpacked, the texts have more than 10,000,000 bytes"):
        inspect(path, task=TASK, max_unpacked_bytes=10_000_000)
