"""One rule for the values of a target in every format: what is a class, a number, or missing, and what is told of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidFile
from service.formats import first_samples, read_dataset
from service.spec.data import DatasetInfo, as_declared
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, some_images, target, write_jsonl, write_npz, write_parquet

TEXT: TaskName = "text-classification"
NAN = float("nan")
Values = list[Any]
Writer = Callable[[Path, dict[str, Values]], Path]


def npz(folder: Path, columns: dict[str, Values]) -> Path:
    arrays: dict[str, Any] = {name: np.array([NAN if v is None else v for v in values]) for name, values in columns.items()}
    return write_npz(folder / "a.npz", image=some_images(len(next(iter(columns.values()))), 4, 4), **arrays)


def parquet(folder: Path, columns: dict[str, Values]) -> Path:
    texts = [f"row {row}" for row in range(len(next(iter(columns.values()))))]
    return write_parquet(folder / "a.parquet", {"text": texts} | {name: pa.array(each) for name, each in columns.items()})


def jsonl(folder: Path, columns: dict[str, Values]) -> Path:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return write_jsonl(folder / "a.jsonl", [{"text": f"row {number}"} | row for number, row in enumerate(rows)])


def csv(folder: Path, columns: dict[str, Values], *, missing: str = "") -> Path:
    lines = [",".join(["text", *columns])]
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        written = [missing if value is None or value != value else str(value) for value in values]
        lines.append(",".join([f"row {number}", *written]))
    path = folder / "a.csv"
    path.write_text("\n".join(lines))
    return path


def csv_with_nan(folder: Path, columns: dict[str, Values]) -> Path:
    return csv(folder, columns, missing="nan")


WRITERS: dict[str, tuple[Writer, TaskName]] = {
    "npz": (npz, "image-classification"),
    "Parquet": (parquet, TEXT),
    "JSONL": (jsonl, TEXT),
    "CSV": (csv, TEXT),
    "CSV with nan": (csv_with_nan, TEXT),
}
in_every_format = pytest.mark.parametrize(("write", "task"), WRITERS.values(), ids=WRITERS)


def warned(info: DatasetInfo) -> dict[str, str]:
    return {warning.code: warning.message for warning in info.warnings}


@in_every_format
@pytest.mark.parametrize(
    ("values", "indices"),
    [
        ([0.0, 1.0, None, 1.0, 2.0, 0.0, 2.0], [0, 1, -1, 1, 2, 0, 2]),
        ([0.0, 1.0, 0.0, 1.0, 1.0], [0, 1, 0, 1, 1]),
        ([1.0, 5.0, 3.0, 1.0, NAN, 5.0, 3.0], [1, 5, 3, 1, -1, 5, 3]),
    ],
    ids=["beside missing values", "binary", "ratings"],
)
def test_whole_floats_that_are_few_and_small_and_repeat_are_classes_and_it_is_told(
    tmp_path: Path, write: Writer, task: TaskName, values: Values, indices: list[int]
) -> None:
    path = write(tmp_path, {"label": values})
    arrays = read(path, task=task)
    names = [str(index) for index in range(max(indices) + 1)]
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": names}, indices)
    assert arrays.splits["train"].targets["label"].dtype == np.int64  # type: ignore[union-attr]
    info = inspect(path, task=task)
    assert (info.columns["label"].kind, info.classes) == ("label", names)
    assert info.class_counts == {"train": [indices.count(index) for index in range(len(names))]}
    assert f"column 'label' holds floats that are all whole, 0 to {max(indices)}" in warned(info)["labels_from_floats"]
    samples = first_samples(path, filename=path.name, task=task, num_rows=1, columns=info.columns)
    assert (samples[0].label, samples[0].targets) == (str(indices[0]), {"label": str(indices[0])})


@in_every_format
@pytest.mark.parametrize("values", [[0.0, 1.0, None, 1.0, 0.0], [1.0, 4.0, 4.0, 1.0, 4.0], [-1.0, 0.0, 1.0, 0.0, 1.0]])
def test_the_remedy_for_numbers_that_were_read_as_classes_works(
    tmp_path: Path, write: Writer, task: TaskName, values: Values
) -> None:
    path = write(tmp_path, {"label": values})
    if -1.0 not in values:
        info = inspect(path, task=task)
        message = warned(info)["labels_from_floats"]
        assert message.endswith("if they are numbers, name 'label' in the spec's dataset.numbers")
        assert message in [each.message for each in read(path, task=task).warnings]
        declared = as_declared(info, ["label"])
        assert (declared.columns["label"].kind, declared.classes, declared.class_counts) == ("number", [], {})
        assert "labels_from_floats" not in warned(declared)
    info = inspect(path, task=task, numbers=["label"])
    assert (info.columns["label"].kind, info.columns["label"].classes, info.classes) == ("number", None, [])
    assert "labels_from_floats" not in warned(info)
    arrays = read_dataset(path, filename=path.name, task=task, target_columns=["label"], numbers=["label"])
    assert arrays.classes == {"label": None}
    expected = [NAN if value is None else value for value in values]
    assert target(arrays.splits["train"]) == pytest.approx(expected, nan_ok=True)


@in_every_format
def test_integers_that_are_declared_as_numbers_are_refused_with_a_remedy_that_works(
    tmp_path: Path, write: Writer, task: TaskName
) -> None:
    with pytest.raises(InvalidFile, match=r"numbers are written as floats \(3.0\), .astype\('float64'\)"):
        inspect(write(tmp_path, {"label": [0, 1, 5, 1, 0, 5]}), task=task, numbers=["label"])
    floats = write(tmp_path, {"label": [0.0, 1.0, 5.0, 1.0, 0.0, 5.0]})
    assert inspect(floats, task=task, numbers=["label"]).columns["label"].kind == "number"


@in_every_format
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1990.0, 2004.0, 1990.0, 2004.0], "holds floats that are all whole"),
        ([-1.0, 1.0, -1.0, 1.0], "holds floats that are all whole"),
        ([1.0, 2.0, 3.0, 4.0], "(whole floats are read as classes where they are 0 to 31 and repeat)"),
        ([0.5, 1.0, 0.5, 1.0], "holds floats, so a job for"),
    ],
    ids=["years", "negative", "never twice", "a fraction"],
)
def test_other_floats_are_numbers_and_a_classification_says_so(
    tmp_path: Path, write: Writer, task: TaskName, values: Values, words: str
) -> None:
    path = write(tmp_path, {"label": values})
    assert target(read(path, task=task).splits["train"]) == values
    info = inspect(path, task=task)
    assert info.columns["label"].kind == "number"
    message = warned(info)["numbers_in_classification"]
    assert words in message
    assert "if its values are classes, write them as integers or strings" in message


@in_every_format
def test_the_remedy_for_classes_that_were_read_as_numbers_works(tmp_path: Path, write: Writer, task: TaskName) -> None:
    assert inspect(write(tmp_path, {"label": [1.0, 2.0, 3.0, 4.0]}), task=task).columns["label"].kind == "number"
    assert inspect(write(tmp_path, {"label": [1, 2, 3, 4]}), task=task).columns["label"].kind == "label"


@in_every_format
def test_numbers_beside_classes_are_not_doubted(tmp_path: Path, write: Writer, task: TaskName) -> None:
    info = inspect(
        write(tmp_path, {"label": [0, 1, 0, 1], "age": [30.5, 40.5, 7.0, 9.0]}), task=task, target_columns=["label", "age"]
    )
    assert info.warnings == []


@pytest.mark.parametrize("name", ["JSONL", "CSV", "CSV with nan"])
def test_integers_of_which_some_are_missing_are_labels_beside_another_target(tmp_path: Path, name: str) -> None:
    write, task = WRITERS[name]
    path = write(tmp_path, {"label": [0, None, 1, 2, 1, 0], "tone": ["a", "b"] * 3})
    arrays = read(path, task=task, targets=["label", "tone"])
    assert arrays.classes == {"label": ["0", "1", "2"], "tone": ["a", "b"]}
    assert target(arrays.splits["train"]) == [0, -1, 1, 2, 1, 0]
    assert inspect(path, task=task, target_columns=["label", "tone"]).columns["label"].kind == "label"


@in_every_format
def test_booleans_are_the_classes_false_and_true(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, {"label": [True, False, True, True]})
    arrays = read(path, task=task)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["false", "true"]}, [1, 0, 1, 1])
    info = inspect(path, task=task)
    assert (info.classes, info.class_counts, info.warnings) == (["false", "true"], {"train": [1, 3]}, [])
    samples = first_samples(path, filename=path.name, task=task, num_rows=1, columns=info.columns)
    assert samples[0].label == "true"


@pytest.mark.parametrize("name", ["Parquet", "JSONL", "CSV"])
def test_a_boolean_may_be_missing(tmp_path: Path, name: str) -> None:
    write, task = WRITERS[name]
    arrays = read(write(tmp_path, {"label": [True, None, False]}), task=task)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["false", "true"]}, [1, -1, 0])


@in_every_format
def test_strings_are_names_of_classes(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, {"label": ["cat", "a dog", "cat", "ape"]})
    arrays = read(path, task=task)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["a dog", "ape", "cat"]}, [2, 0, 2, 1])


@pytest.mark.parametrize("name", ["npz", "Parquet", "JSONL", "CSV"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_name_is_a_missing_label(tmp_path: Path, name: str, blank: str) -> None:
    write, task = WRITERS[name]
    arrays = read(write(tmp_path, {"label": ["cat", blank, "dog", "cat"]}), task=task)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["cat", "dog"]}, [0, -1, 1, 0])


@pytest.mark.parametrize("name", ["npz", "Parquet", "JSONL"])
def test_numbers_in_strings_are_names_and_it_is_told(tmp_path: Path, name: str) -> None:
    write, task = WRITERS[name]
    info = inspect(write(tmp_path, {"label": ["0.5", "1.5", "0.5", "2"]}), task=task)
    assert info.classes == ["0.5", "1.5", "2"]
    assert "column 'label' holds numbers in strings ('0.5', '1.5', '2')" in warned(info)["numbers_in_strings"]
    assert inspect(write(tmp_path, {"label": [0.5, 1.5, 0.5, 2.0]}), task=task).columns["label"].kind == "number"
    indices = inspect(write(tmp_path, {"label": ["0", "1", "0", "1"]}), task=task)
    assert (indices.classes, indices.warnings) == (["0", "1"], [])


@in_every_format
def test_names_that_differ_by_case_or_spaces_alone_are_told(tmp_path: Path, write: Writer, task: TaskName) -> None:
    info = inspect(write(tmp_path, {"label": ["Joy", "joy", "fear", "joy ", "fear"]}), task=task)
    assert info.classes == ["Joy", "fear", "joy", "joy "]
    assert "'Joy' (1 rows) and 'joy' (1 rows) and 'joy ' (1 rows)" in warned(info)["similar_class_names"]


def test_names_that_look_the_same_are_told(tmp_path: Path) -> None:
    info = inspect(jsonl(tmp_path, {"label": ["caf\u00e9", "CAFE\u0301", "bar", "bar"]}), task=TEXT)
    assert len(info.classes) == 3
    assert "similar_class_names" in warned(info)


@pytest.mark.parametrize("word", ["None", "NaN", "n/a"])
def test_a_class_that_is_called_like_a_missing_value_is_told(tmp_path: Path, word: str) -> None:
    for write in (parquet, jsonl, csv):
        info = inspect(write(tmp_path, {"label": ["cat", word, "dog", word]}), task=TEXT)
        assert word in info.classes
        assert f"a class called {word!r} (2 rows)" in warned(info)["class_named_missing"]


@in_every_format
def test_hardly_more_than_one_row_a_class_is_told(tmp_path: Path, write: Writer, task: TaskName) -> None:
    info = inspect(write(tmp_path, {"label": list(range(20))}), task=task)
    assert "has 20 classes in 20 rows, hardly more than one row a class" in warned(info)["many_classes"]


NUMBERED = "if it is a class, number the classes from 0, for instance with numpy.unique(label, return_inverse=True)[1]"


@in_every_format
@pytest.mark.parametrize("kind", [int, float])
def test_minus_one_beside_class_indices_is_a_missing_label_and_it_is_told_with_a_remedy_that_works(
    tmp_path: Path, write: Writer, task: TaskName, kind: type
) -> None:
    labels = [kind(label) for label in (0, -1, 2, 1, 2, -1, 0, 1)]
    path = write(tmp_path, {"label": labels})
    arrays = read(path, task=task)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["0", "1", "2"]}, [0, -1, 2, 1, 2, -1, 0, 1])
    info = inspect(path, task=task)
    assert (info.class_counts, info.columns["label"].missing_counts) == ({"train": [2, 2, 2]}, {"train": 2})
    message = warned(info)["minus_one_is_missing"]
    assert message in [warning.message for warning in arrays.warnings]
    assert "column 'label' holds -1 in 2 rows (the first: column 'label' of split 'train', row 1" in message
    assert message.endswith(NUMBERED)
    assert "2 of 8 rows have no value in column 'label'" in warned(info)["labels_missing"]
    samples = first_samples(path, filename=path.name, task=task, num_rows=2, columns=info.columns)
    assert [sample.label for sample in samples] == ["0", None]
    numbered = inspect(write(tmp_path, {"label": np.unique(labels, return_inverse=True)[1].tolist()}), task=task)
    assert (numbered.class_counts, numbered.warnings) == ({"train": [2, 2, 2, 2]}, [])


@pytest.mark.parametrize("name", ["npz", "Parquet", "JSONL", "CSV"])
def test_other_negatives_are_no_labels_and_the_remedies_work(tmp_path: Path, name: str) -> None:
    write, task = WRITERS[name]
    words = refusal(write(tmp_path, {"label": [0, 1, -2, 1, 0]}), task=task)
    assert "label -2; labels are class indices, 0 and above, or -1 in a row without a label" in words
    assert "leave the value empty or write -1 where there is none" in words
    assert NUMBERED in words
    info = inspect(write(tmp_path, {"label": [0, 2, -1, 1, 0]}), task=task)
    assert info.columns["label"].num_missing == 1


@in_every_format
@pytest.mark.parametrize("labels", [[-1, 1, -1, 1], [-1, 0, 1, 0], [-1.0, 0.0, 1.0, 0.0, 1.0]])
def test_minus_one_that_may_be_a_class_is_refused_with_remedies_that_work(
    tmp_path: Path, write: Writer, task: TaskName, labels: Values
) -> None:
    words = refusal(write(tmp_path, {"label": labels}), task=task)
    assert "holds -1 and nothing above 1" in words
    assert "if -1 is a class, number the classes from 0" in words
    assert words.endswith("leave the value empty, in an npz numpy.where(label < 0, numpy.nan, label)")
    numbered = np.unique(labels, return_inverse=True)[1].tolist()
    assert len(inspect(write(tmp_path, {"label": numbered}), task=task).classes) == len(set(labels))
    if len(set(labels)) > 2:
        labels = [*labels, 0.0, 1.0]
    emptied: Values = [None if label < 0 else label for label in labels]
    assert inspect(write(tmp_path, {"label": emptied}), task=task).columns["label"].num_missing == labels.count(-1)


@pytest.mark.parametrize("shape", [(6, 3), (6, 6)])
def test_one_hot_labels_are_the_classes_that_they_mark(tmp_path: Path, shape: tuple[int, int]) -> None:
    label = np.zeros(shape, np.int64)
    label[np.arange(6), np.arange(6) % shape[1]] = 1
    path = write_npz(tmp_path / "a.npz", image=some_images(6, 4, 4), label=label)
    assert inspect(path).classes == [str(index) for index in range(shape[1])]
    assert target(read(path).splits["train"], "label") == label.argmax(axis=1).tolist()


def test_labels_of_one_column_are_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    label = np.arange(6).reshape(6, 1)
    words = refusal(write_npz(tmp_path / "a.npz", image=some_images(6, 4, 4), label=label))
    assert words.endswith("save label.reshape(-1)")
    assert (
        inspect(write_npz(tmp_path / "a.npz", image=some_images(6, 4, 4), label=label.reshape(-1))).columns["label"].kind
        == "label"
    )
