"""What is read from JSON Lines, and what is refused with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidFile
from tests.unit.formats.files import inspect, read, refusal, target, write_jsonl

ROWS = [
    {"text": "ein Hund", "label": "de", "id": 1},
    {"text": "a dog", "label": "en", "id": 2},
    {"text": "żaba", "label": "pl", "id": 3},
]


def refused(tmp_path: Path, rows: list[Any], **options: Any) -> str:
    return refusal(write_jsonl(tmp_path / "a.jsonl", rows), task="text-classification", **options)


def with_row(**changes: Any) -> list[dict[str, Any]]:
    """Rows of which the second is changed."""
    return [ROWS[0], ROWS[1] | changes, ROWS[2]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.txt", "dataset:ds_1"])
def test_an_object_a_line_is_a_row(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / name, [*ROWS[:2], "", *ROWS[2:], "  "])
    arrays = read(path, task="text-classification")
    assert arrays.splits["train"].inputs == ["ein Hund", "a dog", "żaba"]
    assert target(arrays.splits["train"]) == [0, 1, 2]
    assert arrays.classes == {"label": ["de", "en", "pl"]}
    info = inspect(path, task="text-classification")
    assert (info.task, info.splits, info.classes) == ("text-classification", {"train": 3}, ["de", "en", "pl"])
    assert info.class_counts == info.columns["label"].class_counts == {"train": [1, 1, 1]}
    kinds = {column: (told.kind, told.dtype) for column, told in info.columns.items()}
    assert kinds == {"text": ("text", "string"), "label": ("label", "string"), "id": ("other", "int64")}


def test_a_byte_order_mark_and_a_missing_last_line_end_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": 0}\r\n{"text": "b", "label": 1}')
    assert read(tmp_path / "a", task="text-classification").splits["train"].inputs == ["a", "b"]


def test_a_key_called_split_divides_the_rows(tmp_path: Path) -> None:
    rows = [row | {"split": split} for row, split in zip([*ROWS, ROWS[1]], ["train", "train", "train", "test"], strict=True)]
    arrays = read(write_jsonl(tmp_path / "a.jsonl", rows), task="text-classification")
    assert {name: split.inputs for name, split in arrays.splits.items()} == {
        "train": ["ein Hund", "a dog", "żaba"],
        "test": ["a dog"],
    }
    assert target(arrays.splits["test"]) == [1]


@pytest.mark.parametrize(
    ("labels", "kind", "values"),
    [
        ([1, 0, 2], "label", [1, 0, 2]),
        (["1", "0", "x"], "label", [1, 0, 2]),
        ([1.5, 0.0, -2.0], "number", [1.5, 0.0, -2.0]),
        ([1, 0.5, 2], "number", [1.0, 0.5, 2.0]),
        ([1.0, 2.0, 3.0], "number", [1.0, 2.0, 3.0]),
    ],
)
def test_integers_and_strings_are_labels_and_floats_are_numbers(
    tmp_path: Path, labels: list[Any], kind: str, values: list[Any]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row | {"label": label} for row, label in zip(ROWS, labels, strict=True)])
    assert target(read(path, task="text-classification").splits["train"]) == values
    assert inspect(path, task="text-classification").columns["label"].kind == kind


def test_a_file_of_many_chunks_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.formats.readers.record.CHUNK_BYTES", 30)
    texts = [f"number {index}" for index in range(100)]
    splits = ["train", "test", "train"]
    rows = [{"text": text, "label": index % 3, "split": splits[index % 3]} for index, text in enumerate(texts)]
    path = write_jsonl(tmp_path / "a.jsonl", [row | {"label": index // 3 % 2} for index, row in enumerate(rows)])
    arrays = read(path, task="text-classification")
    assert arrays.splits["test"].inputs == texts[1::3]
    np.testing.assert_array_equal(arrays.splits["test"].targets["label"], [index // 3 % 2 for index in range(1, 100, 3)])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["[1]", *ROWS], "line 1 is no JSON object but '1'"),
        ([*ROWS, "{"], "line 4 is no JSON: "),
        ([*ROWS, "", '{"text": "x", "label": "de",}'], "line 5 is no JSON: "),
        ([*ROWS, "[" * 100_000], "line 4 is no JSON: "),
        ([*ROWS, '{"text": "x", "label": ' + "1" * 5000 + "}"], "line 4 is no JSON: "),
        ([*ROWS, "7"], "line 4 is no JSON object but '7'; write each row as one JSON object"),
        ([*ROWS, {"label": "de"}], "line 4 has no 'text', it has 'label'"),
        ([{"body": "x", "label": 0}], "no input column 'text'; its columns are 'body', 'label'"),
        ([{"text": "x", "label": "a", "\0": 1}], "holds a NUL or half a surrogate pair; rename it"),
        (with_row(text=None), "column 'text', line 2: there is no value"),
        (with_row(text=7), "column 'text', line 2: a text is a string, not 7"),
        (with_row(text=""), "column 'text', line 2: the text is empty"),
        (with_row(text=" \t\u00a0"), "column 'text', line 2: the text is empty"),
        (with_row(text="a\0b"), "column 'text', line 2: the text holds a NUL"),
        ([*ROWS, r'{"text": "\ud800", "label": "de"}'], "column 'text', line 4: the text holds half a surrogate pair"),
        ([*ROWS, r'{"text": "x", "label": "\ud800"}'], "(line 4): class"),
        (with_row(label="a\0"), "(line 2): class 'a\\x00' holds a NUL"),
        (with_row(label="x" * 1001), "(line 2): the name of a class has 1,001 characters"),
        (with_row(label=True), "column 'label' is a string on line 1 and a boolean on line 2; write all as strings"),
        (
            with_row(label=[["de"]]),
            "column 'label', line 2: a target is a number, a string, true or false, or a list of these, not",
        ),
        (with_row(label=1), "column 'label' is a string on line 1 and a number on line 2"),
        ([{"text": "x", "label": -2}], "column 'label', line 1: label -2"),
        ([{"text": "x", "label": 2**63}], "column 'label', line 1: the label is beyond 64 bits"),
        (['{"text": "x", "label": 1e400}', '{"text": "x", "label": 1.0}'], "row 0 (line 1): inf is infinite"),
        ([{"text": "x", "label": 1e39}], "1e+39 is infinite or beyond 32-bit floats"),
        ([row | {"split": "train"} for row in ROWS] + [ROWS[0]], "line 4 has no 'split'"),
        ([*ROWS, ROWS[1] | {"split": "test"}], "line 4 has a 'split' and the rows before it have none; give every row one"),
        ([ROWS[0] | {"split": None}, *ROWS], "column 'split', line 1: there is no name of a split"),
        ([row | {"split": "../x"} for row in ROWS], "no name of a split"),
        ([ROWS[0] | {"split": f"s{index}"} for index in range(20)], "more than 16 splits"),
        ([" ", ""], "no input column 'text'; its columns are none"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place(tmp_path: Path, rows: list[Any], words: str) -> None:
    assert words in refused(tmp_path, rows)


def test_other_encodings_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a", "label": 0}\n{"text": "\xe9", "label": 1}\n')
    assert "line 2 is no UTF-8 (byte 10 of it); save the file as UTF-8" in refusal(
        tmp_path / "a.jsonl", task="text-classification"
    )


def test_a_line_without_end_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.formats.readers.lines.MAX_LINE_BYTES", 100)
    assert "line 2 has more than 100 bytes" in refused(tmp_path, [ROWS[0], {"text": "x" * 200, "label": "en"}])


def test_a_text_as_long_as_a_library_is_refused(tmp_path: Path) -> None:
    assert "the text has 1,000,001 characters" in refused(tmp_path, with_row(text="x" * 1_000_001))


def test_json_lines_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="neither an npz nor a Parquet nor a zip or tar file"):
        read(write_jsonl(tmp_path / "a.jsonl", ROWS))


def test_a_damaged_file_is_refused_or_read_and_nothing_else_ever_happens(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row | {"split": "train", "label": index} for index, row in enumerate(ROWS)])
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(len(whole))]
    for _ in range(400):
        flipped = bytearray(whole)
        for place in random.integers(0, len(whole), size=random.integers(1, 4)):
            flipped[place] ^= int(random.integers(1, 256))
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            inspect(path, task="text-classification")
        except InvalidFile:
            refused += 1
    assert refused > len(damaged) / 2
