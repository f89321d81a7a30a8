"""Several targets, numbers, missing values and answers, in every format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, some_images, target, write_jsonl, write_npz, write_parquet

NUM_ROWS = 6
TEXTS = [f"text {row}" for row in range(NUM_ROWS)]
NAN = float("nan")
Writer = Callable[[Path, dict[str, list[Any]]], Path]


def npz(folder: Path, columns: dict[str, list[Any]]) -> Path:
    kinds = {name: np.array([NAN if v is None else v for v in values]) for name, values in columns.items()}
    as_labels: dict[str, Any] = {
        name: np.where(np.isnan(values), -1, values).astype(np.int64) if _are_labels(columns[name]) else values
        for name, values in kinds.items()
    }
    return write_npz(folder / "a.npz", image=some_images(NUM_ROWS, 4, 4), **as_labels)


def parquet(folder: Path, columns: dict[str, list[Any]]) -> Path:
    return write_parquet(folder / "a.parquet", {"text": TEXTS} | {name: pa.array(values) for name, values in columns.items()})


def jsonl(folder: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [{"text": text} | {name: values[row] for name, values in columns.items()} for row, text in enumerate(TEXTS)]
    return write_jsonl(folder / "a.jsonl", rows)


def csv(folder: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [["text", *columns], *([text, *(values[row] for values in columns.values())] for row, text in enumerate(TEXTS))]
    path = folder / "a.csv"
    path.write_text("\n".join(",".join("" if field is None else str(field) for field in fields) for fields in rows))
    return path


def _are_labels(values: list[Any]) -> bool:
    return not any(isinstance(value, float) for value in values)


FORMATS = [(npz, "image-classification"), *((writer, "text-classification") for writer in (parquet, jsonl, csv))]
in_every_format = pytest.mark.parametrize(("write", "task"), FORMATS, ids=["npz", "Parquet", "JSONL", "CSV"])


@in_every_format
def test_labels_and_numbers_stand_beside_each_other_and_may_be_missing(tmp_path: Path, write: Writer, task: TaskName) -> None:
    columns: dict[str, list[Any]] = {
        "label": [0, None, 1, 2, 1, 0],
        "score": [0.5, -1.5, None, 3e3, None, 0.0],
        "other": [1, 0] * 3,
    }
    path = write(tmp_path, columns)
    arrays = read(path, task=task, targets=["score", "label"])
    assert arrays.classes == {"score": None, "label": ["0", "1", "2"]}
    train = arrays.splits["train"]
    assert (train.targets["label"].dtype, train.targets["score"].dtype) == (np.int64, np.float64)  # type: ignore[union-attr]
    assert target(train, "label") == [0, -1, 1, 2, 1, 0]
    np.testing.assert_array_equal(target(train, "score"), [0.5, -1.5, NAN, 3e3, NAN, 0.0])
    info = inspect(path, task=task, target_columns=["score", "label"])
    assert (info.classes, info.class_counts) == ([], {})
    score, label, other = (info.columns[name] for name in ("score", "label", "other"))
    assert (score.kind, score.num_missing, score.classes, score.num_classes) == ("number", 2, None, None)
    assert (label.kind, label.num_missing, label.classes) == ("label", 1, ["0", "1", "2"])
    assert (label.num_classes, label.class_counts) == (3, {"train": [2, 2, 1]})
    assert (other.kind, other.num_missing, other.num_classes) == ("other", 0, None)


@in_every_format
def test_a_number_that_is_infinite_is_refused(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, {"score": [0.5, -1.5, 1.0, float("-inf"), 1.0, 0.0]})
    words = refusal(path, task=task, targets=["score"])
    assert "row 3" in words
    assert "-inf is infinite or beyond 32-bit floats; fill it" in words


@in_every_format
@pytest.mark.parametrize("values", [[None] * NUM_ROWS, [NAN] * NUM_ROWS])
def test_a_target_without_any_value_is_a_label_without_classes(
    tmp_path: Path, write: Writer, task: TaskName, values: list[Any]
) -> None:
    if write is parquet:
        values = pa.array(values, pa.float32() if values[0] else pa.int32())
    path = write(tmp_path, {"label": [0, 1] * 3, "score": values})
    arrays = read(path, task=task, targets=["label", "score"])
    assert arrays.classes == {"label": ["0", "1"], "score": []}
    assert target(arrays.splits["train"], "score") == [-1] * NUM_ROWS
    info = inspect(path, task=task, target_columns=["label", "score"])
    score = info.columns["score"]
    assert (score.kind, score.classes, score.num_missing, score.missing_counts) == ("label", [], 6, {"train": 6})
    messages = {warning.code: warning.message for warning in info.warnings}
    assert "no row has a value in column 'score': all 6 rows are read as without a label" in messages["unlabelled"]


@pytest.mark.parametrize(("write", "task"), FORMATS[1:], ids=["Parquet", "JSONL", "CSV"])
def test_class_names_may_be_missing_and_are_no_class_of_their_own(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, {"tone": ["warm", None, "cold", "warm", None, "cold"], "label": [0, 1] * 3})
    arrays = read(path, task=task, targets=["tone", "label"])
    assert arrays.classes == {"tone": ["cold", "warm"], "label": ["0", "1"]}
    assert target(arrays.splits["train"], "tone") == [1, -1, 0, 1, -1, 0]
    info = inspect(path, task=task, target_columns=["tone", "label"])
    assert (info.classes, info.class_counts) == (["cold", "warm"], {"train": [2, 2]})


@pytest.mark.parametrize(("write", "task"), FORMATS[1:], ids=["Parquet", "JSONL", "CSV"])
def test_a_causal_lm_has_texts_and_may_have_answers(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, {"answer": [f"answer {row}" for row in range(NUM_ROWS)], "label": [0, 1] * 3})
    plain = read(path, task="causal-lm")
    assert (plain.splits["train"].inputs, plain.splits["train"].targets, plain.classes) == (TEXTS, {}, {})
    info = inspect(path, task="causal-lm")
    assert (info.classes, info.class_counts, info.columns["label"].kind) == ([], {}, "other")
    answered = read(path, task="causal-lm", targets=["answer"])
    assert answered.splits["train"].targets == {"answer": [f"answer {row}" for row in range(NUM_ROWS)]}
    assert answered.classes == {"answer": None}
    assert inspect(path, task="causal-lm", target_columns=["answer"]).columns["answer"].kind == "text"


@pytest.mark.parametrize(("write", "task"), FORMATS[1:], ids=["Parquet", "JSONL", "CSV"])
@pytest.mark.parametrize(("missing", "words"), [(None, ""), (" ", "the text is empty")])
def test_an_answer_that_is_empty_is_refused(tmp_path: Path, write: Writer, task: TaskName, missing: Any, words: str) -> None:
    path = write(tmp_path, {"answer": ["a", "b", missing, "d", "e", "f"]})
    found = refusal(path, task="causal-lm", targets=["answer"])
    assert "column 'answer' of split 'train', row 2" in found
    assert words in found


def test_a_causal_lm_has_one_answer_of_text(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"answer": ["a"] * NUM_ROWS, "label": [0] * NUM_ROWS})
    assert "the answers of a causal-lm are strings" in refusal(path, task="causal-lm", targets=["label"])
    assert "a causal-lm dataset has at most 1" in refusal(path, task="causal-lm", targets=["answer", "label"])
    numbers = jsonl(tmp_path, {"answer": [1] * NUM_ROWS})
    assert "row 0 (line 1): a text is a string, not 1" in refusal(numbers, task="causal-lm", targets=["answer"])


def test_a_language_model_needs_texts_alone(tmp_path: Path) -> None:
    path = csv(tmp_path, {"label": [0] * NUM_ROWS})
    assert read(path, task="causal-lm").splits["train"].targets == {}
    assert inspect(path, task="causal-lm").columns["label"].kind == "other"


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"label": [0, 1] * 3})
    assert "target 'label' is named twice" in refusal(path, task="text-classification", targets=["label", "label"])
    assert "the input and a target are both column 'text'" in refusal(path, task="text-classification", targets=["text"])
    many = [f"c{index}" for index in range(65)]
    assert "there are 65 targets" in refusal(path, task="text-classification", targets=many)


def test_npz_arrays_of_splits_belong_to_the_longest_target_that_they_end_with(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "a.npz",
        train_image=some_images(4, 4, 4),
        train_label=[0, 1, 0, 1],
        train_fine_label=[0, 1, 2, 2],
        test_image=some_images(2, 4, 4),
        test_label=[1, 1],
        test_fine_label=[2, -1],
    )
    arrays = read(path, targets=["label", "fine_label"])
    assert {name: len(split.inputs) for name, split in arrays.splits.items()} == {"train": 4, "test": 2}
    assert target(arrays.splits["test"], "fine_label") == [2, -1]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"train_label": [0, 1], "test_label": [0.0, 1.0]}, "save integers (labels) in every split, or floats (numbers)"),
        ({"train_label": [0, 1], "train_other": [0, 1, 0], "test_label": [0, 1], "test_other": [0, 1]}, "2 rows and array"),
    ],
)
def test_npz_targets_that_do_not_go_together_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    images = some_images(2, 4, 4)
    targets = ["label"] if "floats" in words else ["label", "other"]
    columns: dict[str, Any] = {name: np.array(values) for name, values in arrays.items()}
    path = write_npz(tmp_path / "a.npz", train_image=images, test_image=images, **columns)
    assert words in refusal(path, targets=targets)


def test_huggingface_class_names_go_with_missing_labels(tmp_path: Path) -> None:
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    schema = pa.schema({"text": pa.string(), "label": pa.int64(), "score": pa.float64()})
    table = pa.table({"text": TEXTS, "label": [0, None, 1, 1, 0, None], "score": [1.0] * NUM_ROWS}, schema=schema)
    metadata = {"huggingface": str({"info": {"features": features}}).replace("'", '"')}
    path = write_parquet(tmp_path / "a.parquet", table.replace_schema_metadata(metadata))
    arrays = read(path, task="text-classification", targets=["label", "score"])
    assert arrays.classes["label"] == ["no", "yes"]
    assert target(arrays.splits["train"]) == [0, -1, 1, 1, 0, -1]
