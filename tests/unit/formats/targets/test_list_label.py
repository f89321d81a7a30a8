"""Lists as targets, in every format that has them: several classes of a row, or how probable each class is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, some_images, write_jsonl, write_npz, write_parquet

TEXT: TaskName = "text-classification"
NAN = float("nan")
Write = Callable[[Path, list[Any]], Path]


def jsonl(folder: Path, lists: list[Any]) -> Path:
    return write_jsonl(folder / "a.jsonl", [{"text": f"row {row}", "label": value} for row, value in enumerate(lists)])


def parquet(folder: Path, lists: list[Any]) -> Path:
    return write_parquet(folder / "a.parquet", {"text": [f"row {row}" for row in range(len(lists))], "label": pa.array(lists)})


in_both = pytest.mark.parametrize("write", [jsonl, parquet])


def values(path: Path, task: TaskName = TEXT) -> NDArray[Any]:
    return np.asarray(read(path, task=task).splits["train"].targets["label"])


@in_both
def test_names_in_a_list_are_the_classes_of_a_row_and_an_empty_list_is_none_of_them(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [["sun", "sea"], [], ["sea"], None, ["sea", "sea", "art"]])
    info, arrays = inspect(path, task=TEXT), read(path, task=TEXT)

    label = info.columns["label"]
    assert (label.kind, label.classes, label.class_counts) == ("labels", ["art", "sea", "sun"], {"train": [1, 3, 1]})
    assert (label.num_missing, arrays.label_kinds) == (1, {"label": "labels"})
    np.testing.assert_array_equal(values(path), [[0, 1, 1], [0, 0, 0], [0, 1, 0], [NAN] * 3, [1, 1, 0]])


@in_both
def test_numbers_in_lists_of_any_length_are_indices(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [[0, 3], [], [1]])
    assert inspect(path, task=TEXT).columns["label"].classes == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(values(path), [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])


def named(folder: Path, lists: list[Any], *names: str) -> Path:
    """A file as the datasets library writes it, with the names of the classes whose indices the lists hold."""
    feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table = pa.table({"text": [f"row {row}" for row in range(len(lists))], "label": pa.array(lists)})
    return write_parquet(folder / "a.parquet", table.replace_schema_metadata(metadata))


def test_indices_are_called_as_the_datasets_library_says(tmp_path: Path) -> None:
    path = named(tmp_path, [[0, 2], [1]], "art", "sea", "sun")
    assert inspect(path, task=TEXT).columns["label"].classes == ["art", "sea", "sun"]
    np.testing.assert_array_equal(values(path), [[1, 0, 1], [0, 1, 0]])


def test_a_0_and_a_1_in_every_list_are_indices_where_more_classes_have_names(tmp_path: Path) -> None:
    path = named(tmp_path, [[0, 1], [1, 0]], "art", "sea", "sun")
    assert inspect(path, task=TEXT).columns["label"].class_counts == {"train": [2, 2, 0]}
    np.testing.assert_array_equal(values(path), [[1, 1, 0], [1, 1, 0]])


def test_places_are_called_as_the_datasets_library_says(tmp_path: Path) -> None:
    path = named(tmp_path, [[0, 1, 1], [1, 0, 0]], "art", "sea", "sun")
    assert inspect(path, task=TEXT).columns["label"].classes == ["art", "sea", "sun"]
    np.testing.assert_array_equal(values(path), [[0, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("lists", "names", "message"),
    [
        ([[0, 1], [1, 0]], ["art", "sea"], "they may be indices or places; write the names of each row's classes"),
        ([[0, 1, 1], [1, 0, 0]], ["art", "sea"], "row 0.*lists of 3 numbers, .* names 2 classes"),
        ([[0], [1, 2]], ["a\0", "b", "c"], "holds a NUL"),
        ([[0], [1, 2]], ["a", "\ud800", "c"], "half a surrogate pair"),
        ([[0], [1, 2]], ["a", "b", "c" * 2000], "has 2,000 characters"),
    ],
)
def test_names_that_do_not_say_what_the_lists_hold_are_refused(
    tmp_path: Path, lists: list[Any], names: list[str], message: str
) -> None:
    assert re.search(message, refusal(named(tmp_path, lists, *names), task=TEXT))


def test_places_of_booleans_have_no_names(tmp_path: Path) -> None:
    for shape in ((3, 2), (3, 4)):
        path = write_npz(tmp_path / "a.npz", image=some_images(3, 4, 4), label=np.ones(shape, dtype=np.bool_))
        assert inspect(path).columns["label"].classes == ["0", "1", "2", "3"][: shape[1]]


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_number_beyond_floats_in_a_list_is_refused_with_its_row(tmp_path: Path, number: int) -> None:
    assert re.search("row 1.*hundreds of digits", refusal(jsonl(tmp_path, [[0], [number]]), task=TEXT))


def test_an_array_of_more_classes_than_may_be_is_refused_before_it_is_read(tmp_path: Path) -> None:
    label = np.zeros((2, 2**24), dtype=np.uint8)
    path = write_npz(tmp_path / "a.npz", compressed=True, image=some_images(2, 4, 4), label=label)
    assert "16,777,216 classes in its lists; at most 10,000" in refusal(path)


@in_both
@pytest.mark.parametrize("one", [1, 1.0, True])
def test_lists_of_0_and_1_have_a_place_for_each_class(tmp_path: Path, write: Write, one: Any) -> None:
    rows = [[one, type(one)(0), one], [type(one)(0)] * 3, [type(one)(0), one, type(one)(0)]]
    path = write(tmp_path, rows)
    assert inspect(path, task=TEXT).columns["label"].class_counts == {"train": [1, 1, 1]}
    np.testing.assert_array_equal(values(path), np.array(rows, dtype=np.float32))


@in_both
def test_exactly_one_1_in_every_list_is_a_plain_class_and_this_is_told(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [[0, 1, 0], [1, 0, 0], None, [0, 1, 0]])
    info, arrays = inspect(path, task=TEXT), read(path, task=TEXT)
    assert (info.columns["label"].kind, info.classes, arrays.label_kinds) == ("label", ["0", "1", "2"], {})
    assert values(path).tolist() == [1, 0, -1, 1]
    assert "exactly one 1 in every row" in next(each.message for each in info.warnings if each.code == "labels_from_one_hot")


@in_both
def test_lists_with_fractions_are_probabilities(tmp_path: Path, write: Write) -> None:
    rows = [[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], None, [0.3333, 0.3333, 0.3333]]
    path = write(tmp_path, rows)
    label = inspect(path, task=TEXT).columns["label"]
    assert (label.kind, label.classes, label.num_missing) == ("probabilities", ["0", "1", "2"], 1)
    np.testing.assert_allclose(values(path)[[0, 1, 3]], np.array([rows[0], rows[1], rows[3]]), rtol=1e-6)
    assert np.isnan(values(path)[2]).all()


@pytest.mark.parametrize(
    ("lists", "kind"),
    [([[0, 1, 1], [0, 0, 0], [1, 1, 0]], "labels"), ([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0]], "probabilities")],
)
def test_an_array_of_an_npz_is_read_alike(tmp_path: Path, lists: list[Any], kind: str) -> None:
    path = write_npz(tmp_path / "a.npz", image=some_images(3, 4, 4), label=np.array(lists))
    assert inspect(path).columns["label"].kind == kind
    np.testing.assert_allclose(values(path, "image-classification"), lists)


@in_both
@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], r"row 1.* sums to 0.9: divide each row by its sum"),
        ([[0.5, 0.5], [0.2, 0.3, 0.5]], "row 1.* has 3 and others 2; write one number for each class"),
        ([[0.5, 0.5], [1.5, -0.5]], "row 1.*holds a number below 0"),
        ([[0, 1], [1, 0, 3, 3]], "row 1.*an index stands in the list twice"),
        ([["a"], ["b", " "]], "row 1.*a class without a name"),
        ([["a"], ["a"]], "lists of 1 classes; two at least"),
        ([[0, 10_000], [1]], "has 10,001 classes in its lists; at most 10,000"),
        ([[0, 1], [1, 0], [0, 1, 2]], None),
    ],
)
def test_what_a_list_cannot_mean_is_refused_with_its_row(
    tmp_path: Path, write: Write, lists: list[Any], message: str | None
) -> None:
    path = write(tmp_path, lists)
    if message is None:
        assert inspect(path, task=TEXT).columns["label"].kind == "labels"
        return
    assert re.search(message, refusal(path, task=TEXT))


def test_lists_beside_single_values_and_names_beside_numbers_are_refused(tmp_path: Path) -> None:
    assert "is a list on line 1 and a string on line 2" in refusal(jsonl(tmp_path, [["a"], "b"]), task=TEXT)
    assert "other rows hold n" in refusal(jsonl(tmp_path, [["a"], [3]]), task=TEXT)
    assert "neither strings nor numbers alone" in refusal(jsonl(tmp_path, [["a", 3]]), task=TEXT)


@in_both
def test_lists_that_are_all_missing_are_labels_that_a_teacher_gives(tmp_path: Path, write: Write) -> None:
    path = (
        write(tmp_path, [None, None])
        if write is jsonl
        else write_parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": pa.array([None, None], pa.list_(pa.string()))})
    )
    assert inspect(path, task=TEXT).classes == []
    assert values(path).tolist() == [-1, -1]
