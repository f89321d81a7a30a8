"""Types of Parquet columns that libraries write of their own accord: the values are read, whatever way they are encoded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.spec.tasks import TaskName
from tests.unit.formats.files import encoded, inspect, pixels, read, refusal, some_images, target, write_parquet

TASK: TaskName = "text-classification"
TEXTS, NAMES, SPLITS = ["a", "b", "c", "d"], ["x", "y", "x", None], ["train", "train", "train", "test"]
ENCODINGS = {
    "dictionary": lambda values: pa.array(values).dictionary_encode(),
    "large string": lambda values: pa.array(values, pa.large_string()),
    "string view": lambda values: pa.array(values, pa.string_view()),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_strings_are_read_in_whatever_way_they_are_encoded(tmp_path: Path, encode: Any) -> None:
    columns = {name: encode(values) for name, values in {"text": TEXTS, "label": NAMES, "split": SPLITS}.items()}
    arrays = read(write_parquet(tmp_path / "a.parquet", columns), task=TASK)
    assert (arrays.splits["train"].inputs, arrays.splits["test"].inputs) == (["a", "b", "c"], ["d"])
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["x", "y"]}, [0, 1, 0])


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_lists_of_words_and_tags_are_read_so_too(tmp_path: Path, encode: Any) -> None:
    words = pa.ListArray.from_arrays([0, 2, 4], encode(TEXTS))
    tags = pa.ListArray.from_arrays([0, 2, 4], encode(["B-X", "O", "O", "O"]))
    arrays = read(write_parquet(tmp_path / "a.parquet", {"tokens": words, "tags": tags}), task="token-classification")
    assert arrays.splits["train"].inputs == [["a", "b"], ["c", "d"]]
    assert [np.asarray(codes).tolist() for codes in arrays.splits["train"].targets["tags"]] == [[0, 1], [1, 1]]


@pytest.mark.parametrize("nested", [lambda name: {name: 1}, lambda name: [{name: 1}]], ids=["struct", "list"])
def test_names_of_fields_that_no_database_stores_are_written_out(tmp_path: Path, nested: Any) -> None:
    more = pa.array([nested("a\0b")] * 4)
    path = write_parquet(tmp_path / "a.parquet", {"text": TEXTS, "label": NAMES, "more": more})
    assert "struct<a\\x00b: int64>" in inspect(path, task=TASK).columns["more"].dtype


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
@pytest.mark.parametrize("as_struct", [False, True])
def test_image_files_are_read_from_every_type_of_bytes(tmp_path: Path, type_: pa.DataType, as_struct: bool) -> None:
    images = some_images(4, 6, 5, 3)
    files = pa.array([encoded(image) for image in images], type_)
    column = pa.StructArray.from_arrays([files, pa.array(TEXTS)], ["bytes", "path"]) if as_struct else files
    arrays = read(write_parquet(tmp_path / "a.parquet", {"image": column, "label": [0, 1, 0, 1]}))
    np.testing.assert_array_equal(pixels(arrays.splits["train"]), images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (pa.array([2, 0, None, 1]).dictionary_encode(), [2, 0, -1, 1]),
        (pa.array([0.5, 1.5, -1, 2], pa.float16()), [0.5, 1.5, -1.0, 2.0]),
        (pa.array([1, 0, 1, 0], pa.uint64()), [1, 0, 1, 0]),
        (pa.array([True, False, None, True]), [1, 0, -1, 1]),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, 1, 0], pa.int8())), [1, 0, 1, 0]),
    ],
)
def test_labels_are_read_from_every_type_of_numbers(tmp_path: Path, labels: pa.Array, values: list[float]) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": TEXTS, "label": labels})
    assert target(read(path, task=TASK).splits["train"]) == values


def test_frames_of_pandas_are_read_with_their_categories_and_without_their_index(tmp_path: Path) -> None:
    columns = {"text": TEXTS, "label": pa.array(["x", "y", "x", "z"]).dictionary_encode(), "__index_level_0__": [3, 5, 8, 9]}
    info = inspect(write_parquet(tmp_path / "a.parquet", columns), task=TASK)
    assert (info.classes, info.warnings) == (["x", "y", "z"], [])
    assert info.columns["__index_level_0__"].kind == "other"


def test_a_dotted_name_is_a_field_of_a_struct(tmp_path: Path) -> None:
    column = pa.array([{"en": "a", "of": {"kind": 1}}, {"en": "b", "of": None}, {"en": "c", "of": {"kind": 0}}])
    path = write_parquet(tmp_path / "a.parquet", {"translation": column, "id": [1, 2, 3]})
    arrays = read(path, task=TASK, input_column="translation.en", targets=["translation.of.kind"])
    assert arrays.splits["train"].inputs == ["a", "b", "c"]
    assert target(arrays.splits["train"], "translation.of.kind") == [1, -1, 0]
    info = inspect(path, task=TASK, input_column="translation.en", target_columns=["translation.of.kind"])
    assert [each.message for each in info.warnings if each.code == "column_unused"] == [
        "column 'id' takes no part: the input is 'translation.en', the targets are 'translation.of.kind'; to predict another, "
        "upload the file with target_column=NAME"
    ]


def test_the_classes_of_a_field_have_the_names_that_the_file_gives_them(tmp_path: Path) -> None:
    label = {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}
    features = {"info": {"features": {"meta": {"label": label, "id": {"dtype": "int64", "_type": "Value"}}}}}
    table = pa.table({"text": ["a", "b"], "meta": [{"label": 1, "id": 7}, {"label": 0, "id": 8}]})
    path = write_parquet(tmp_path / "a.parquet", table.replace_schema_metadata({"huggingface": json.dumps(features)}))
    info = inspect(path, task=TASK, target_columns=["meta.label"])
    assert (info.classes, info.class_counts) == (["cat", "dog", "eel"], {"train": [1, 1, 0]})
    assert [each.code for each in info.warnings] == ["class_without_rows"]


def test_a_column_with_a_dot_in_its_own_name_comes_first(tmp_path: Path) -> None:
    columns = {"a.b": ["x", "y"], "a": pa.array([{"b": "within"}] * 2), "label": [0, 1]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    assert read(path, task=TASK, input_column="a.b").splits["train"].inputs == ["x", "y"]


def test_an_input_that_is_null_within_is_refused_by_its_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"a": pa.array([{"b": "x"}, None]), "label": [0, 1]})
    assert "column 'a.b', row 1" in refusal(path, task=TASK, input_column="a.b")
    assert "no input column 'a.c'" in refusal(path, task=TASK, input_column="a.c")
