"""What is counted of a dataset: lengths in fixed bins, sizes, and rows with the same input, wherever in the file they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.formats import repeated_rows
from service.spec.data import DatasetInfo
from service.spec.dataset_facts import DatasetFacts, Lengths, RowPlace, SharedRow, SharedRows
from service.spec.tasks import TaskName
from tests.unit.formats.files import encoded, inspect, some_images, write_jsonl, write_npz
from tests.unit.formats.sounds import some_sound, sound_file
from tests.unit.test_archives import zipped

TEXT: TaskName = "text-classification"


def facts(path: Path, **options: Any) -> DatasetFacts:
    """Of the file, which are those of its shards."""
    found = inspect(path, **options).facts
    assert found is not None
    return found


def bins(lengths: Lengths, split: str = "train") -> dict[float, int]:
    """Rows by the beginning of their bin."""
    return {edge: count for edge, count in zip(lengths.edges, lengths.counts[split], strict=True) if count}


def texts(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """Rows of a text and a split."""
    lines = [{"text": text, "label": index % 2, "split": split} for index, (text, split) in enumerate(rows)]
    return write_jsonl(folder / "a.jsonl", lines)


def warned(info: DatasetInfo) -> dict[str, str]:
    return {warning.code: warning.message for warning in info.warnings}


# ---------------------------------------------------------------- lengths


def test_texts_have_characters_and_words_are_counted(tmp_path: Path) -> None:
    found = facts(
        texts(tmp_path, [("a" * 15, "train"), ("ä" * 16, "train"), ("b" * 31, "test"), ("c" * 70_000, "test")]), task=TEXT
    )
    lengths = found.lengths["text"]
    assert (lengths.unit, bins(lengths), bins(lengths, "test")) == ("characters", {0: 1, 16: 1}, {16: 1, 65_536: 1})
    assert (lengths.least, lengths.most, lengths.mean) == (15, 70_000, (15 + 16 + 31 + 70_000) / 4)
    words = write_jsonl(tmp_path / "b.jsonl", [{"tokens": ["a"] * size, "tags": ["O"] * size} for size in (1, 2, 9)])
    lengths = facts(words, task="token-classification").lengths["tokens"]
    assert (lengths.unit, bins(lengths), lengths.mean) == ("words", {0: 1, 2: 1, 8: 1}, 4)


def test_of_pairs_each_column_has_its_lengths_and_of_chats_what_is_said_counts(tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "a.jsonl", [{"one": "a" * 20, "two": "b" * size, "label": size % 2} for size in (3, 40)])
    lengths = facts(pairs, task=TEXT, input_column=["one", "two"]).lengths
    assert {name: bins(each) for name, each in lengths.items()} == {"one": {16: 2}, "two": {0: 1, 32: 1}}
    said = [{"role": "user", "content": "a" * 10}, {"role": "assistant", "content": "b" * 10}]
    chats = write_jsonl(tmp_path / "b.jsonl", [{"messages": said}, {"messages": said[:1]}])
    assert bins(facts(chats, task="causal-lm", input_column="messages").lengths["messages"]) == {0: 1, 16: 1}


def test_images_have_the_pixels_of_their_longer_side_and_sounds_have_seconds(tmp_path: Path) -> None:
    files = [("cat/1.png", encoded(some_images(10, 40, 3))), ("dog/1.png", encoded(some_images(64, 8, 3)))]
    (tmp_path / "a.zip").write_bytes(zipped(files))
    found = facts(tmp_path / "a.zip")
    lengths = found.lengths["image"]
    assert (lengths.unit, bins(lengths), lengths.least, lengths.most) == ("pixels", {32: 1, 64: 1}, 40, 64)
    assert found.decoded_bytes == {"train": 10 * 40 * 3 + 64 * 8 * 3}
    arrays = write_npz(tmp_path / "a.npz", image=some_images(6, 8, 5), label=np.arange(6) % 2)
    assert bins(facts(arrays).lengths["image"]) == {0: 6}
    clips = [sound_file(some_sound(samples, seed=rate), rate=rate) for samples, rate in ((4_000, 8_000), (24_000, 16_000))]
    (tmp_path / "b.zip").write_bytes(zipped([("cat/1.wav", clips[0]), ("dog/1.wav", clips[1])]))
    lengths = facts(tmp_path / "b.zip", task="audio-classification").lengths["audio"]
    assert (lengths.unit, bins(lengths), lengths.mean) == ("seconds", {0.5: 1, 1: 1}, 1.0)


# ---------------------------------------------------------------- rows that are there several times


@pytest.fixture(params=[1_000_000, 2], ids=["in memory", "in files"])
def held_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_rows, "_MOST_HELD_ROWS", request.param)


@pytest.mark.usefixtures("held_rows")
def test_rows_are_found_within_splits_and_in_two_with_their_places(tmp_path: Path) -> None:
    rows = [
        ("a", "train"),
        ("b", "train"),
        ("c", "test"),
        ("a", "train"),
        ("b", "test"),
        ("a", "test"),
        ("b", "valid"),
        ("b", "test"),
    ]
    path = texts(tmp_path, [*rows, *((f"other {index}", "train") for index in range(200))])
    found = facts(path, task=TEXT)
    assert found.repeated_rows == {"train": 1, "test": 1, "valid": 0}

    def pair(here: int, there: int) -> SharedRow:
        return SharedRow(here=RowPlace(row=here, line=here + 1), there=RowPlace(row=there, line=there + 1))

    shared = {(each.split, each.also_in): each for each in found.shared_rows}
    assert shared == {
        ("test", "train"): SharedRows(split="test", also_in="train", rows=3, first=[pair(4, 1), pair(5, 0)]),
        ("valid", "train"): SharedRows(split="valid", also_in="train", rows=1, first=[pair(6, 1)]),
        ("valid", "test"): SharedRows(split="valid", also_in="test", rows=1, first=[pair(6, 4)]),
    }


@pytest.mark.usefixtures("held_rows")
def test_counts_are_those_of_a_dictionary_of_all_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [(f"text {random.integers(300)}", str(random.choice(["train", "dev", "test"]))) for _ in range(600)]
    found = facts(texts(tmp_path, rows), task=TEXT)
    inputs = {split: [text for text, of in rows if of == split] for split in ("train", "dev", "test")}
    assert found.repeated_rows == {split: len(each) - len(set(each)) for split, each in inputs.items()}
    for shared in found.shared_rows:
        assert shared.rows == sum(text in set(inputs[shared.also_in]) for text in inputs[shared.split])
        assert len(shared.first) == 3
        for both in shared.first:
            assert rows[both.here.row][0] == rows[both.there.row][0]
            assert [rows[place.row][1] for place in (both.here, both.there)] == [shared.split, shared.also_in]
    assert {(each.split, each.also_in) for each in found.shared_rows} == {("dev", "train"), ("test", "train"), ("test", "dev")}


def test_rows_of_the_training_split_in_a_scored_one_are_warned_of(tmp_path: Path) -> None:
    rows = [(f"row {index}", "train") for index in range(8)] + [(f"row {index}", "test") for index in range(3, 10)]
    assert warned(inspect(texts(tmp_path, rows), task=TEXT))["rows_in_train"] == (
        "5 of 7 rows of split 'test' are in split 'train' too, input for input (the first: row 8 (line 9) is row 3 (line 4); "
        "row 9 (line 10) is row 4 (line 5); row 10 (line 11) is row 5 (line 6)): their score would show what was learnt by heart"
        "; take them out of one of the two"
    )
    unused = [(text, "unsupervised" if split == "test" else split) for text, split in rows]
    assert "rows_in_train" not in warned(inspect(texts(tmp_path, unused), task=TEXT))


def test_prompts_are_the_same_with_the_same_answers_alone(tmp_path: Path) -> None:
    rows = [
        {"prompt": "why?", "completion": answer, "split": split}
        for answer, split in zip("aabb", ("train", "test") * 2, strict=True)
    ]
    rows[3]["completion"] = "c"
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    (shared,) = facts(path, task="causal-lm", input_column="prompt", target_columns=["completion"]).shared_rows
    assert (shared.rows, shared.first[0].here.row, shared.first[0].there.row) == (1, 1, 0)


def test_images_are_the_same_by_their_pixels_whatever_the_file(tmp_path: Path) -> None:
    image, others = some_images(8, 8, 3), some_images(4, 8, 8, 3, seed=1)
    files = [
        ("train/cat/1.png", encoded(image)),
        ("train/dog/1.png", encoded(others[0])),
        ("test/cat/9.png", encoded(image, format="BMP")),
    ]
    (tmp_path / "a.zip").write_bytes(zipped([*files, ("test/dog/1.png", encoded(others[1]))]))
    (shared,) = facts(tmp_path / "a.zip").shared_rows
    assert (shared.split, shared.also_in, shared.rows) == ("test", "train", 1)


@pytest.mark.parametrize(("one", "other"), [((6, 4), (4, 6)), ((4, 9), (4, 3, 3))], ids=["turned", "coloured"])
def test_images_of_one_colour_and_of_other_shapes_are_not_the_same(
    tmp_path: Path, one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    images = [encoded(np.full(shape, 7, dtype=np.uint8)) for shape in (one, other)]
    path = tmp_path / "a.zip"
    path.write_bytes(zipped([("train/a/1.png", images[0]), ("train/b/2.png", images[1]), ("test/a/1.png", images[0])]))
    found = facts(path)
    assert found.repeated_rows == {"train": 0, "test": 0}
    assert [(shared.split, shared.rows, shared.first[0].there.row) for shared in found.shared_rows] == [("test", 1, 1)]


def test_a_description_from_before_this_was_counted_has_none() -> None:
    old: dict[str, Any] = {"task": TEXT, "splits": {"train": 1}, "columns": {}, "classes": []}
    assert DatasetInfo.model_validate_json(json.dumps(old)).facts is None
