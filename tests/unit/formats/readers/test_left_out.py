"""Nothing of a file is left out without a word: hidden files, other members, blank lines, columns, doubled keys."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidFile
from service.spec.data import DatasetInfo
from service.spec.tasks import TaskName
from tests.unit.formats.files import encoded, inspect, refusal, some_images, write_jsonl, write_npz, write_parquet
from tests.unit.test_archives import tarred, zipped

TEXT: TaskName = "text-classification"
PNG = encoded(some_images(4, 4))
ROWS: list[Any] = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]


def warned(info: DatasetInfo) -> dict[str, str]:
    return {warning.code: warning.message for warning in info.warnings}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_hidden_files_of_an_archive_are_counted_and_named(tmp_path: Path, pack: Any) -> None:
    hidden = [(".DS_Store", b"x"), ("__MACOSX/cat/._1.png", b"x"), ("cat/.2.png", PNG)]
    path = tmp_path / "a.zip"
    path.write_bytes(pack([("cat/1.png", PNG), ("dog/1.png", PNG), *hidden]))
    info = inspect(path)
    assert info.splits == {"train": 2}
    words = "3 hidden files of the archive are left out: '.DS_Store', '__MACOSX/cat/._1.png', 'cat/.2.png'"
    assert warned(info) == {"files_skipped": words}


def test_of_many_hidden_files_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped([("a/1.png", PNG), ("b/1.png", PNG), *((f"a/.{number}", b"") for number in range(100, 130))]))
    assert warned(inspect(path))["files_skipped"].startswith("30 hidden files of the archive are left out: 'a/.100', ")
    assert warned(inspect(path))["files_skipped"].endswith("'a/.109', …")


@pytest.mark.parametrize("name", ["README.txt", "labels.csv", "Thumbs.txt"])
@pytest.mark.parametrize("folder", ["", "cat/"])
def test_a_file_that_is_no_sample_is_refused_by_its_path(tmp_path: Path, name: str, folder: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped([("cat/1.png", PNG), ("dog/1.png", PNG), (f"{folder}{name}", b"x")]))
    assert f"'{folder}{name}'" in (words := refusal(path))
    assert "take it out" in words


def test_members_and_arrays_of_an_npz_that_are_no_columns_are_told(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", image=some_images(4, 4, 4), label=np.arange(4) % 2, ids=np.arange(4), note=np.ones(2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "about")
    found = warned(inspect(path))
    assert found["files_skipped"] == "1 files of the npz are no arrays and are left out: 'README.txt'"
    assert found["column_unused"].startswith("column 'ids', 'note' takes no part: the input is 'image', the targets are 'label'")


def test_blank_lines_between_rows_are_counted_and_those_at_the_end_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,0\n\n\nb,1\n\nc,0\n\n\n")
    assert warned(inspect(tmp_path / "a.csv", task=TEXT)) == {"blank_lines": "3 blank lines are left out (the first: line 3)"}
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], "", "  ", ROWS[1], ""])
    assert warned(inspect(path, task=TEXT)) == {"blank_lines": "2 blank lines are left out (the first: line 2)"}
    assert inspect(write_jsonl(tmp_path / "a.jsonl", [*ROWS, ""]), task=TEXT).warnings == []


@pytest.mark.parametrize("column", [["x", "y"], [1, 2], [0.5, 1.5]])
def test_a_column_that_takes_no_part_is_named(tmp_path: Path, column: list[Any]) -> None:
    table: dict[str, list[Any]] = {"text": ["a", "b"], "label": [0, 1], "id": column, "split": ["train", "train"]}
    paths = [write_parquet(tmp_path / "a.parquet", table)]
    paths.append(write_jsonl(tmp_path / "a.jsonl", [{name: values[row] for name, values in table.items()} for row in (0, 1)]))
    paths.append(tmp_path / "a.csv")
    paths[-1].write_text("text,label,id,split\n" + "".join(f"{row},{row},{column[row]},train\n" for row in (0, 1)))
    for path in paths:
        assert warned(inspect(path, task=TEXT))["column_unused"].startswith("column 'id' takes no part")


def test_a_column_that_the_first_row_lacks_is_named_too(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], ROWS[1] | {"note": "x"}])
    assert "column 'note' takes no part" in warned(inspect(path, task=TEXT))["column_unused"]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"text": "a", "label": 0, "label": 1}', "label"),
        ('{"text": "a", "text": "a", "label": 0}', "text"),
        ('{"text": "a", "label": {"x": 1, "x": 2}}', "x"),
    ],
)
def test_a_key_that_stands_twice_in_a_row_is_refused_with_its_line(tmp_path: Path, line: str, key: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[1], line])
    assert f"line 2 has the key {key!r} twice; keep one of them" in refusal(path, task=TEXT)


def test_a_column_name_that_stands_twice_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,label\na,0,1\n")
    assert "line 1 names column 'label' twice" in refusal(tmp_path / "a.csv", task=TEXT)
    schema = pa.schema([("text", pa.string()), ("label", pa.int64()), ("label", pa.int64())])
    table = pa.Table.from_arrays([pa.array(["a", "b"]), pa.array([0, 1]), pa.array([1, 0])], schema=schema)
    assert "two columns are called 'label'; rename one" in refusal(write_parquet(tmp_path / "a.parquet", table), task=TEXT)
    buffer = io.BytesIO()
    np.save(buffer, np.arange(2))
    path = write_npz(tmp_path / "a.npz", image=some_images(2, 4, 4), label=np.arange(2))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("label.npy", buffer.getvalue())
    assert "two arrays called 'label'" in refusal(path)


@pytest.mark.parametrize("name", ["Label", "labels", " label", "true_label"])
def test_a_column_of_almost_the_targets_name_is_no_file_without_labels(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a", name: 0}, {"text": "b", name: 1}])
    with pytest.raises(InvalidFile, match="the file has no column 'label' and one called") as refused:
        inspect(path, task=TEXT)
    assert "if the file has no labels, take it out" in refused.value.detail
    renamed = write_jsonl(tmp_path / "b.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 1}])
    assert inspect(renamed, task=TEXT).classes == ["0", "1"]
    if name == name.strip():
        assert f"target_column={name}" in refused.value.detail
        assert inspect(path, task=TEXT, target_columns=[name]).classes == ["0", "1"]


def test_arrays_of_almost_the_targets_name_are_no_file_without_labels(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", train_image=some_images(4, 4, 4), train_labels=np.arange(4) % 2)
    with pytest.raises(InvalidFile, match="the file has no column 'label' and one called 'train_labels'"):
        inspect(path)
