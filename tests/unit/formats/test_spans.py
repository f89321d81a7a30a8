"""Texts and the spans in them, read as words and IOB2 tags."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.formats import first_samples, inspect_dataset
from service.formats.words import word_spans
from tests.unit.formats.files import read, refusal, write_jsonl, write_parquet
from tests.unit.words import TASK, in_both_formats, task_of_words, write

pytestmark = pytest.mark.usefixtures(task_of_words.__name__)

TEXT = "Ann Lee, 30, left Paris."


def span(start: int, end: int, label: str = "PER") -> dict[str, Any]:
    return {"start": start, "end": end, "label": label}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann's co-op: 3.5%!", ["Ann", "'", "s", "co", "-", "op", ":", "3", ".", "5", "%", "!"]),
        ("  two\tlines\n", ["two", "lines"]),
        ("Łódź cafe\u0301", ["Łódź", "cafe\u0301"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("東京タワー2階", ["東", "京", "タ", "ワ", "ー", "2", "階"]),
        ("서울은 좋다", ["서울은", "좋다"]),
        ("می‌روم", ["می‌روم"]),
        ("\u200bzero\u200b", ["zero"]),
        ("a_b €5 👍🏽", ["a", "_", "b", "€", "5", "👍", "🏽"]),
    ],
)
def test_words_are_runs_of_letters_and_digits_and_single_other_characters(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == words


@in_both_formats
def test_spans_become_iob2_tags_of_whole_words(tmp_path: Path, format: str) -> None:
    rows: list[dict[str, Any]] = [
        {"text": TEXT, "spans": [span(18, 23, "LOC"), span(0, 7)]},
        {"text": "Bo Bo", "spans": [span(0, 2), span(3, 5)]},
        {"text": "Nobody", "spans": []},
        {"text": "unknown", "spans": None},
    ]
    path = write(tmp_path, format, rows)
    arrays = read_spans(path)
    assert arrays.classes == {"spans": ["B-LOC", "B-PER", "I-PER", "O"]}
    train = arrays.splits["train"]
    assert train.inputs == [
        ["Ann", "Lee", ",", "30", ",", "left", "Paris", "."],
        ["Bo", "Bo"],
        ["Nobody"],
        ["unknown"],
    ]
    assert [row.tolist() for row in train.targets["spans"]] == [[1, 2, 3, 3, 3, 3, 0, 3], [1, 1], [3], [-1]]
    info = inspect_dataset(path, filename=path.name, task=TASK, input_column="text", target_columns=["spans"])
    assert {name: column.kind for name, column in info.columns.items()} == {"text": "text", "spans": "spans"}
    assert (info.columns["spans"].class_counts, info.columns["spans"].num_missing) == ({"train": [1, 3, 1, 6]}, 1)
    shown = first_samples(path, filename=path.name, task=TASK, input_column="text", target_columns=["spans"], num_rows=2)
    assert (shown[1].tokens, shown[1].targets) == (["Bo", "Bo"], {"spans": ["B-PER", "B-PER"]})


def read_spans(path: Path) -> Any:
    return read(path, task=TASK, input_column="text", targets=["spans"])


def test_a_border_may_stand_in_spaces_and_other_fields_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "JSONL", [{"text": "by  Ann  here", "spans": [span(3, 8) | {"score": 0.5}]}])
    arrays = read_spans(path)
    assert arrays.classes == {"spans": ["B-PER", "O"]}
    assert [row.tolist() for row in arrays.splits["train"].targets["spans"]] == [[1, 0, 1]]


@in_both_formats
def test_texts_without_spans_are_words_without_tags(tmp_path: Path, format: str) -> None:
    path = write(tmp_path, format, [{"text": "two words"}, {"text": "one"}])
    arrays = read_spans(path)
    assert [row.tolist() for row in arrays.splits["train"].targets["spans"]] == [[-1, -1], [-1]]
    info = inspect_dataset(path, filename=path.name, task=TASK, input_column="text")
    assert (info.columns["tags"].kind, [warning.code for warning in info.warnings]) == ("spans", ["unlabelled"])


FAULTS: dict[str, tuple[Any, str]] = {
    "begins in a word": ([span(1, 7)], "span 0 (1 to 7, 'nn Lee') begins inside the word 'Ann' (0 to 3)"),
    "ends in a word": ([span(0, 3), span(18, 21)], "span 1 (18 to 21, 'Par') ends inside the word 'Paris' (18 to 23)"),
    "overlaps": ([span(0, 7), span(4, 8)], "span 1 (4 to 8, 'Lee,') overlaps span 0"),
    "is empty": ([span(4, 4)], "span 0: it is empty, from 4 to 4"),
    "runs backwards": ([span(7, 4)], "span 0: it runs from 7 to 4"),
    "is out of range": ([span(18, 25)], "it runs from 18 to 25, and the text has 24 characters"),
    "is negative": ([span(-3, 3)], "it runs from -3 to 3"),
    "is of spaces": ([span(3, 4)], "span 0 (3 to 4, ' ') has no word"),
    "has no label": ([span(0, 3, " ")], "span 0: the label is empty"),
    "lacks a field": ([{"start": 0, "label": "PER"}], "is no span of two whole numbers and a string"),
}


@in_both_formats
@pytest.mark.parametrize(("spans", "words"), FAULTS.values(), ids=FAULTS)
def test_a_span_that_is_none_of_whole_words_is_refused(tmp_path: Path, format: str, spans: Any, words: str) -> None:
    told = refused(write(tmp_path, format, [{"text": "fine", "spans": [span(0, 4)]}, {"text": TEXT, "spans": spans}]))
    assert words in told
    assert "row 1" in told
    assert ("line 2" in told) == (format == "JSONL")


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ({"start": [0], "end": [3], "label": ["PER"]}, "the spans are a list, not {'start'"),
        ([[0, 3, "PER"]], "[0, 3, 'PER'] is no span"),
        ([span(0, 3) | {"start": False}], "is no span of two whole numbers and a string"),
        ([span(0, 3) | {"end": 3.0}], "is no span of two whole numbers and a string"),
        (["B-PER", "O"], "tags stand beside lists of words"),
    ],
)
def test_json_may_hold_what_columns_cannot(tmp_path: Path, spans: Any, words: str) -> None:
    assert words in refused(write_jsonl(tmp_path / "a.jsonl", [{"text": TEXT, "spans": spans}]))


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([{"start": [0], "end": [3], "label": ["PER"]}] * 2, "this is a struct of lists: write [dict(zip(spans, each))"),
        (pa.array([["B-PER"], ["O"]]), "tags stand beside lists of words"),
        (["a", "b"], "column 'spans' is of string; a span is {'start'"),
    ],
)
def test_columns_of_other_types_are_refused_with_what_to_write(tmp_path: Path, spans: Any, words: str) -> None:
    assert words in refused(write_parquet(tmp_path / "a.parquet", {"text": [TEXT, TEXT], "spans": spans}))


def refused(path: Path) -> str:
    return refusal(path, task=TASK, input_column="text", targets=["spans"])
