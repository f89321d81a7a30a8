"""Words and their tags: what is read of lists, which schemes of entities are refused, and that the remedies work."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidFile
from service.formats import first_samples
from service.spec.data import DatasetSpec
from service.spec.data_fit import data_faults
from tests.unit.formats.files import inspect, read, refusal, write_jsonl, write_parquet
from tests.unit.words import TASK, in_both_formats, task_of_words, write

pytestmark = pytest.mark.usefixtures(task_of_words.__name__)

WORDS = [["John", "Smith", "left"], ["Paris"], ["rain", "again"], ["Ann", "and", "Bo"]]
TAGS: list[Any] = [["B-PER", "I-PER", "O"], ["B-LOC"], None, ["B-PER", None, "B-PER"]]
ROWS = [
    {"tokens": words, "tags": tags, "split": "test" if row == 1 else "train"}
    for row, (words, tags) in enumerate(zip(WORDS, TAGS, strict=True))
]


def codes(path: Path, split: str = "train") -> list[list[int]]:
    """The class indices by row, as training reads them."""
    return [row.tolist() for row in read(path, task=TASK).splits[split].targets["tags"]]  # type: ignore[union-attr]


@in_both_formats
def test_words_and_tags_are_read_with_their_gaps(tmp_path: Path, format: str) -> None:
    path = write(tmp_path, format, ROWS)
    arrays = read(path, task=TASK)
    assert arrays.classes == {"tags": ["B-LOC", "B-PER", "I-PER", "O"]}
    train = arrays.splits["train"]
    assert train.inputs == [WORDS[0], WORDS[2], WORDS[3]]
    assert codes(path) == [[1, 2, 3], [-1, -1], [1, -1, 1]]
    assert {row.dtype for row in train.targets["tags"]} == {np.dtype(np.int64)}  # type: ignore[union-attr]
    assert codes(path, "test") == [[0]]


@in_both_formats
def test_a_description_counts_words_by_class_and_rows_without_a_tag(tmp_path: Path, format: str) -> None:
    info = inspect(write(tmp_path, format, ROWS), task=TASK)
    tokens, tags = info.columns["tokens"], info.columns["tags"]
    assert (tokens.kind, tags.kind, tags.num_classes) == ("tokens", "tags", 4)
    assert tags.class_counts == info.class_counts == {"train": [0, 3, 1, 1], "test": [1, 0, 0, 0]}
    assert (tags.num_missing, tags.missing_counts) == (1, {"train": 1})
    assert info.classes == ["B-LOC", "B-PER", "I-PER", "O"]
    assert [warning.code for warning in info.warnings] == ["labels_missing", "class_not_in_train"]
    assert "no row of 'B-LOC'" in info.warnings[1].message


@in_both_formats
def test_a_file_without_tags_is_one_without_labels(tmp_path: Path, format: str) -> None:
    path = write(tmp_path, format, [{"tokens": words} for words in WORDS])
    info = inspect(path, task=TASK)
    assert (info.columns["tags"].kind, info.columns["tags"].num_missing, info.classes) == ("tags", 4, [])
    assert [warning.code for warning in info.warnings] == ["unlabelled"]
    assert codes(path) == [[-1] * len(words) for words in WORDS]
    everywhere = write(tmp_path, format, [{"tokens": words, "tags": None} for words in WORDS])
    assert codes(everywhere) == [[-1] * len(words) for words in WORDS]


def test_tags_under_almost_the_usual_name_are_not_left_out_unseen(tmp_path: Path) -> None:
    path = write(tmp_path, "JSONL", [{"tokens": ["a"], "ner_tags": ["O"]}])
    with pytest.raises(InvalidFile, match="one called 'ner_tags'"):
        inspect(path, task=TASK)


@in_both_formats
def test_samples_show_words_with_their_tags(tmp_path: Path, format: str) -> None:
    path = write(tmp_path, format, [*ROWS, {"tokens": ["w"] * 200, "tags": ["O"] * 200, "split": "train"}])
    info = inspect(path, task=TASK)
    shown = first_samples(path, filename=path.name, task=TASK, num_rows=9, columns=info.columns)
    by_row = {sample.row: sample for sample in shown}
    assert (by_row[0].tokens, by_row[0].targets) == (WORDS[0], {"tags": TAGS[0]})
    assert (by_row[2].targets, by_row[3].targets) == ({"tags": None}, {"tags": TAGS[3]})
    assert (by_row[0].label, by_row[0].text) == (None, None)
    assert len(by_row[4].tokens or []) == len(by_row[4].targets["tags"]) == 100  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", ["List", "Sequence", "old list"])
def test_indices_have_the_names_that_datasets_notes(tmp_path: Path, wrap: str) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    label = {"names": names, "_type": "ClassLabel"}
    feature = [label] if wrap == "old list" else {"feature": label, "_type": wrap}
    metadata = {"huggingface": json.dumps({"info": {"features": {"ner_tags": feature}}})}
    table = pa.table({"tokens": WORDS[:2], "ner_tags": pa.array([[1, 2, 0], [None]], pa.list_(pa.int64()))})
    path = write_parquet(tmp_path / "a.parquet", table.replace_schema_metadata(metadata))
    arrays = read(path, task=TASK, targets=["ner_tags"])
    assert arrays.classes == {"ner_tags": names}
    assert [row.tolist() for row in arrays.splits["train"].targets["ner_tags"]] == [[1, 2, 0], [-1]]  # type: ignore[union-attr]
    info = inspect(path, task=TASK, target_columns=["ner_tags"])
    assert info.class_counts == {"train": [1, 1, 1, 0]}
    beyond = pa.table({"tokens": WORDS[:2], "ner_tags": [[1, 2, 4], [0]]}).replace_schema_metadata(metadata)
    assert "row 0, word 2: tag 4; the file names tags 0 to 3" in refusal(
        write_parquet(tmp_path / "b.parquet", beyond), task=TASK, targets=["ner_tags"]
    )


def test_parts_of_speech_are_classes_of_words(tmp_path: Path) -> None:
    info = inspect(write(tmp_path, "JSONL", [{"tokens": ["it", "rains"], "tags": ["PRON", "VERB"]}] * 5), task=TASK)
    assert (info.classes, info.class_counts, info.warnings) == (["PRON", "VERB"], {"train": [5, 5]}, [])


def test_bare_types_are_read_with_a_doubt_whose_remedy_writes_iob2(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b", "c", "d", "e"], "tags": ["PER", "PER", "O", "LOC", "PER"]}]
    (warning,) = [each for each in inspect(write(tmp_path, "JSONL", rows), task=TASK).warnings if each.code == "tags_without_iob"]
    assert converted(warning.message, rows[0]["tags"]) == ["B-PER", "I-PER", "O", "B-LOC", "B-PER"]


SCHEMES: dict[str, tuple[list[str], str, list[str] | None]] = {
    "IOB1": (
        ["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-PER"],
        "as in IOB1",
        ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-PER"],
    ),
    "BIOES": (["B-PER", "I-PER", "E-PER", "O", "S-LOC"], "such as 'E-PER', as BIOES", ["B-PER", "I-PER", "I-PER", "O", "B-LOC"]),
    "BILOU": (["B-PER", "L-PER", "O", "U-LOC"], "as BIOES and BILOU have them", ["B-PER", "I-PER", "O", "B-LOC"]),
    "one slip": (["B-PER", "O", "I-PER", "O"], "word 2 ('w2'): the tag 'I-PER' stands behind 'O'", ["B-PER", "O", "B-PER", "O"]),
    "another type": (["B-PER", "I-LOC"], "word 1 ('w1'): the tag 'I-LOC' stands behind 'B-PER'", ["B-PER", "B-LOC"]),
    "without types": (["B", "I", "O"], "holds 'B' and 'I' without a type", ["B-NAME", "I-NAME", "O"]),
    "a mixture": (["B-PER", "I-PER", "LOC"], "holds 'LOC' beside 'B-PER'", None),
}


@pytest.mark.parametrize(("tags", "words", "iob2"), SCHEMES.values(), ids=SCHEMES)
def test_entities_in_another_scheme_are_refused_with_a_line_that_converts_them(
    tmp_path: Path, tags: list[str], words: str, iob2: list[str] | None
) -> None:
    rows = [{"tokens": ["x"], "tags": ["O"]}, {"tokens": [f"w{at}" for at in range(len(tags))], "tags": tags}]
    told = refusal(write(tmp_path, "JSONL", rows), task=TASK)
    assert words in told
    if iob2 is not None:
        assert converted(told, tags) == iob2
        right = [{"tokens": row["tokens"], "tags": tags} for row, tags in zip(rows, (["O"], iob2), strict=True)]
        assert inspect(write(tmp_path, "JSONL", right), task=TASK).classes == sorted({"O", *iob2})


def converted(message: str, tags: list[str]) -> list[str]:
    """What the line of Python in a message makes of a row."""
    (line,) = re.findall(r"\[.*for .* in (?:enumerate\()?tags\)?\]", message)
    found: list[str] = eval(line, {"tags": tags})
    return found


def test_an_entity_may_go_on_behind_a_word_without_a_tag(tmp_path: Path) -> None:
    path = write(tmp_path, "JSONL", [{"tokens": ["a", "b", "c"], "tags": ["B-PER", None, "I-PER"]}])
    assert codes(path) == [[0, -1, 1]]


@in_both_formats
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "1 tags for 2 tokens"),
        ({"tokens": ["a"], "tags": []}, "0 tags for 1 tokens"),
        ({"tokens": []}, "the list has no words"),
        ({"tokens": None}, "there is no value"),
        ({"tokens": ["a", ""]}, "word 1: it is empty"),
        ({"tokens": [" \t"]}, "word 0: it is empty"),
        ({"tokens": ["a", None]}, "word 1: a word is a string, not None"),
        ({"tokens": ["a\0"]}, "word 0: it holds a NUL"),
        ({"tokens": ["x" * 1001]}, "word 0: it has 1,001 characters"),
        ({"tokens": ["a"], "tags": ["B-\0"]}, "class 'B-\\x00' holds a NUL"),
        ({"tokens": ["a"], "tags": ["x" * 1001]}, "the name of a class has 1,001 characters"),
        ({"tokens": ["x" * 999] * 1002}, "the words have 1,000,998 characters"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_by_its_number(tmp_path: Path, format: str, row: dict[str, Any], words: str) -> None:
    told = refusal(write(tmp_path, format, [{"tokens": ["fine"], "tags": ["O"]}, {"tags": ["O"]} | row]), task=TASK)
    assert words in told
    assert ("row 1" in told) or ("line 2" in told)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": "a b"}, "these are no words but a text, 'a b'"),
        ({"tokens": [1]}, "word 0: a word is a string, not 1"),
        ({"tokens": ["a"], "tags": "O"}, "the tags are a list, one for each word, not 'O'"),
        ({"tokens": ["a"], "tags": [3]}, "word 0 ('a'): 3 is a number and no tag; write the names"),
        ({"tokens": ["a"], "tags": [{"start": 0, "end": 1, "label": "PER"}]}, "spans stand beside texts"),
        ({"tokens": ["a"], "tags": [True]}, "True is no tag; tags are strings"),
    ],
)
def test_json_may_hold_what_columns_cannot(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    told = refusal(write(tmp_path, "JSONL", [{"tokens": ["fine"], "tags": ["O"]}, {"tags": None} | row]), task=TASK)
    assert words in told
    assert "line 2" in told


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"tokens": [[1], [2]], "tags": [["O"], ["O"]]},
            "column 'tokens' is of list<element: int64>; words are lists of strings",
        ),
        ({"tokens": [["a"]] * 2, "tags": ["O", "O"]}, "tags are lists of strings, one for each word"),
        ({"tokens": [["a"]] * 2, "tags": [[0], [1]]}, "the file does not name the tags; write their names"),
        ({"tokens": [["a"]] * 2, "tags": [[0.5], [1.0]]}, "tags are lists of strings"),
        ({"tokens": [["a"]] * 2, "tags": [[{"start": 0}], []]}, "spans stand beside texts"),
        ({"tokens": ["a b"] * 2, "tags": [["O", "O"]] * 2}, "tags stand beside lists of words"),
        ({"words": [["a"]] * 2, "tags": [["O"]] * 2}, "the file has no input column 'tokens'"),
        ({"text": ["a"] * 2, "spans": [[], []]}, "upload it with input_column=text and, of its spans, target_column=spans"),
    ],
)
def test_columns_of_other_types_are_refused_with_what_to_write(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert words in refusal(write_parquet(tmp_path / "a.parquet", columns), task=TASK)


def test_half_a_surrogate_pair_is_no_character(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [r'{"tokens": ["a", "\ud800"], "tags": null}'])
    assert "line 1, word 1: it holds half a surrogate pair" in refusal(path, task=TASK)


def test_bytes_that_are_no_utf8_are_refused_by_their_row(tmp_path: Path) -> None:
    words = pa.array([b"fine", b"gr\xfc\xdfe"]).view(pa.string())
    path = write_parquet(tmp_path / "a.parquet", {"tokens": pa.ListArray.from_arrays([0, 1, 2], words)})
    assert "column 'tokens', row 1: the text is no UTF-8" in refusal(path, task=TASK)


def test_a_csv_has_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("tokens,tags\na b,O O\n")
    told = refusal(path, task=TASK)
    assert "a CSV, which has no lists of words, tags or spans" in told
    assert "send Parquet (pyarrow.parquet.write_table) or JSONL" in told


def test_words_that_unpack_to_more_than_allowed_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "Parquet", [{"tokens": ["x" * 100] * 10, "tags": None}] * 5)
    with pytest.raises(InvalidFile, match="unpacked, the words have more than 4,000 bytes"):
        inspect(path, task=TASK, max_unpacked_bytes=4000)


def test_a_spec_may_name_the_columns_and_no_others(tmp_path: Path) -> None:
    info = inspect(write(tmp_path, "JSONL", [{"tokens": ["a"], "tags": [tag]} for tag in "OX" * 9]), task=TASK)
    fits = DatasetSpec(source="file:a.jsonl", input="tokens", targets=["tags"])
    assert data_faults(fits, info, task=TASK) == []
    found = data_faults(DatasetSpec(source="file:a.jsonl", input="tags", targets=["tokens"], numbers=["tokens"]), info, task=TASK)
    assert [fault.pointer for fault in found] == ["/dataset/input", "/dataset/targets/0"]
    assert "its tokens and text columns are 'tokens'" in found[0].message
    assert "holds no tags or spans" in found[1].message
