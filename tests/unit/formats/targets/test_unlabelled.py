"""Files of which no row, or not every row, has a label, and classes that not every split shows: read, and told."""

from pathlib import Path

import pyarrow as pa
import pytest

from service.errors import InvalidFile
from service.formats import first_samples
from service.spec.data import DatasetInfo
from service.spec.tasks import TaskName
from tests.unit.formats.files import (
    encoded,
    inspect,
    read,
    some_images,
    target,
    write_jsonl,
    write_parquet,
)
from tests.unit.formats.rows import ABSENT, TEXT, WRITERS, Writer, folders, in_every_format, jsonl, npz
from tests.unit.formats.sounds import some_sound, sound_file
from tests.unit.test_archives import zipped


def warned(info: DatasetInfo) -> dict[str, str]:
    return {warning.code: warning.message for warning in info.warnings}


@in_every_format
def test_a_file_without_the_tasks_own_target_is_read_as_unlabelled_and_says_so(
    tmp_path: Path, write: Writer, task: TaskName
) -> None:
    path = write(tmp_path, [("train", ABSENT)] * 4 + [("test", ABSENT)] * 2)
    arrays = read(path, task=task)
    assert arrays.classes == {"label": []}
    assert {name: (len(split.inputs), target(split)) for name, split in arrays.splits.items()} == {
        "train": (4, [-1] * 4),
        "test": (2, [-1] * 2),
    }
    info = inspect(path, task=task)
    label = info.columns["label"]
    assert (info.classes, info.class_counts) == ([], {"train": [], "test": []})
    assert (label.kind, label.num_classes, label.num_missing, label.missing_counts) == ("label", 0, 6, {"train": 4, "test": 2})
    assert "all 6 rows are read as without a label" in warned(info)["unlabelled"]
    assert first_samples(path, filename=path.name, task=task, num_rows=9)[0].label is None


@in_every_format
def test_a_target_that_is_named_and_absent_is_still_refused(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, [("train", ABSENT)] * 4)
    with pytest.raises(InvalidFile, match="no target column 'label'"):
        inspect(path, task=task, target_columns=["label"])


@in_every_format
def test_labels_may_be_missing_in_train_alone(tmp_path: Path, write: Writer, task: TaskName) -> None:
    missing = ABSENT if write is npz else None
    path = write(tmp_path, [("train", missing)] * 4 + [("test", label) for label in (0, 1, 1, 2)])
    arrays = read(path, task=task)
    assert arrays.classes == {"label": ["0", "1", "2"]}
    assert (target(arrays.splits["train"]), target(arrays.splits["test"])) == ([-1] * 4, [0, 1, 1, 2])
    info = inspect(path, task=task)
    assert info.class_counts == {"train": [0, 0, 0], "test": [1, 2, 1]}
    assert info.columns["label"].missing_counts == {"train": 4}
    assert "4 of 8 rows have no value in column 'label'" in warned(info)["labels_missing"]
    assert "split 'train' has none in any row" in warned(info)["labels_missing"]


@pytest.mark.parametrize(("write", "task"), list(WRITERS.values())[:4], ids=list(WRITERS)[:4])
def test_some_rows_may_have_no_label(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, [("train", label) for label in (0, None, 1, None, 2)])
    assert target(read(path, task=task).splits["train"]) == [0, -1, 1, -1, 2]
    message = warned(inspect(path, task=task))["labels_missing"]
    assert message.startswith("2 of 5 rows have no value in column 'label' (the first: column 'label' of split 'train', row 1")


def test_in_json_lines_a_row_may_lack_the_key(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [("train", ABSENT), ("train", "b"), ("train", ABSENT), ("train", "a")])
    arrays = read(path, task=TEXT)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["a", "b"]}, [-1, 1, -1, 0])
    assert inspect(path, task=TEXT).columns["label"].num_missing == 2


@in_every_format
def test_a_class_may_occur_in_test_alone(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, [("train", label) for label in (0, 1, 0, 1)] + [("test", label) for label in (0, 2)])
    arrays = read(path, task=task)
    assert arrays.classes == {"label": ["0", "1", "2"]}
    assert target(arrays.splits["test"]) == [0, 2]
    info = inspect(path, task=task)
    assert info.class_counts == {"train": [2, 2, 0], "test": [1, 0, 1]}
    assert warned(info)["class_not_in_train"] == "split 'train' has no row of '2' in column 'label', and other splits have some"


@pytest.mark.parametrize(("write", "task"), list(WRITERS.values())[:4], ids=list(WRITERS)[:4])
def test_integer_labels_may_have_gaps_and_are_called_by_their_numbers(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, [("train", label) for label in (0, 1, 4, 1)] + [("test", 6)])
    arrays = read(path, task=task)
    assert arrays.classes == {"label": ["0", "1", "2", "3", "4", "5", "6"]}
    assert (target(arrays.splits["train"]), target(arrays.splits["test"])) == ([0, 1, 4, 1], [6])
    info = inspect(path, task=task)
    assert info.class_counts == {"train": [1, 2, 0, 0, 1, 0, 0], "test": [0, 0, 0, 0, 0, 0, 1]}
    assert "3 of the 7 classes of column 'label' occur in no row: '2', '3', '5'" in warned(info)["class_without_rows"]


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (["1", "2"], {"train": 2}),
        (["photos/1", "photos/2"], {"train": 2}),
        (["my/photos/1", "my/photos/2"], {"train": 2}),
        (["train/1", "train/2"], {"train": 2}),
        (["all/train/1", "all/train/2", "all/test/3"], {"train": 2, "test": 1}),
        (["train/images/1", "test/images/2"], {"train": 1, "test": 1}),
        (["Training/1", "Testing/2"], {"Training": 1, "Testing": 1}),
        (["train/1", "unlabeled/2"], {"train": 1, "unlabeled": 1}),
    ],
)
@pytest.mark.parametrize("kind", ["image", "audio"])
def test_an_archive_without_class_folders_is_read_as_unlabelled(
    tmp_path: Path, paths: list[str], splits: dict[str, int], kind: str
) -> None:
    task: TaskName = "image-classification" if kind == "image" else "audio-classification"
    content = encoded(some_images(4, 4)) if kind == "image" else sound_file(some_sound(400))
    path = tmp_path / "a.zip"
    path.write_bytes(zipped([(name, content) for name in paths]))
    arrays = read(path, task=task)
    assert {name: len(split.inputs) for name, split in arrays.splits.items()} == splits
    assert arrays.classes == {"label": []}
    assert "unlabelled" in warned(inspect(path, task=task))


def test_a_lone_class_folder_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped([(f"cat/{number}.png", encoded(some_images(4, 4))) for number in range(3)]))
    assert warned(inspect(path))["lone_folder"].startswith(
        "all 3 files are in one class folder, 'cat', which tells nothing apart"
    )
    with pytest.raises(InvalidFile, match="all 3 files are in one class folder, 'cat'"):
        inspect(path, target_columns=["label"])


def test_unlabelled_training_files_may_lie_beside_labelled_test_files(tmp_path: Path) -> None:
    path = folders(tmp_path, [("train", None)] * 3 + [("test", "cat"), ("test", "dog"), ("val", "dog")])
    arrays = read(path)
    assert arrays.classes == {"label": ["cat", "dog"]}
    assert {name: target(split) for name, split in arrays.splits.items()} == {"test": [0, 1], "train": [-1] * 3, "val": [1]}


def test_a_column_of_another_name_is_named_as_what_the_labels_may_be_in(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "class": 0}, {"text": "y", "class": 1}])
    message = warned(inspect(path, task=TEXT))["unlabelled"]
    assert "of 'class', upload it with target_column=NAME" in message
    assert inspect(path, task=TEXT, target_columns=["class"]).classes == ["0", "1"]


def test_the_label_that_huggingface_writes_for_none_is_missing(tmp_path: Path) -> None:
    metadata = {"huggingface": '{"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}'}
    table = pa.table({"text": ["a", "b", "c"], "label": [0, -1, 1]}).replace_schema_metadata(metadata)
    arrays = read(write_parquet(tmp_path / "a.parquet", table), task=TEXT)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["no", "yes"]}, [0, -1, 1])
    nothing = table.set_column(1, "label", pa.array([-1, -1, -1]))
    assert read(write_parquet(tmp_path / "a.parquet", nothing), task=TEXT).classes == {"label": ["no", "yes"]}
