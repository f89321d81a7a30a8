"""Pairs of texts in two columns: what is read of them, from every format and from shards, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidFile
from service.formats import TextPair, first_samples, read_dataset, write_shards
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, target, write_jsonl, write_parquet

TASK: TaskName = "text-classification"
PAIR = ["premise", "hypothesis"]
PAIRS = [("a cat sleeps", "an animal sleeps"), ("a cat sleeps", "a cat runs"), ('it, "is"', "is it?"), ("x", "x")]
LABELS = ["entailment", "contradiction", "neutral", "entailment"]
SPLITS = ["train", "train", "test", "train"]


def as_parquet(folder: Path) -> Path:
    first, second = zip(*PAIRS, strict=True)
    columns = {
        "hypothesis": pa.array(second).dictionary_encode(),
        "id": range(4),
        "premise": pa.array(first, pa.large_string()),
        "label": LABELS,
        "split": SPLITS,
    }
    return write_parquet(folder / "a.parquet", pa.table(columns))


def as_jsonl(folder: Path) -> Path:
    rows = zip(PAIRS, LABELS, SPLITS, strict=True)
    named = [{"premise": one, "hypothesis": two, "label": label, "split": split} for (one, two), label, split in rows]
    return write_jsonl(folder / "a.jsonl", named)


def as_csv(folder: Path) -> Path:
    path, quoted = folder / "a.csv", [[text.replace('"', '""') for text in pair] for pair in PAIRS]
    rows = [f'"{one}",{label},"{two}",{split}' for (one, two), label, split in zip(quoted, LABELS, SPLITS, strict=True)]
    path.write_text("\n".join(["premise,label,hypothesis,split", *rows]))
    return path


@pytest.mark.parametrize("write", [as_parquet, as_jsonl, as_csv])
def test_two_columns_are_read_as_pairs_in_the_order_that_they_are_named_in(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    arrays = read(path, task=TASK, input_column=PAIR)
    assert arrays.splits["train"].inputs == [TextPair(*PAIRS[index]) for index in (0, 1, 3)]
    assert arrays.splits["test"].inputs == [TextPair(*PAIRS[2])]
    assert target(arrays.splits["train"]) == [1, 0, 1]
    swapped = read(path, task=TASK, input_column=PAIR[::-1])
    assert swapped.splits["test"].inputs == [TextPair(PAIRS[2][1], PAIRS[2][0])]
    info = inspect(path, task=TASK, input_column=PAIR)
    assert [info.columns[name].kind for name in PAIR] == ["text", "text"]


def test_a_sample_shows_both_texts_each_cut(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"premise": "p" * 600, "hypothesis": "h", "label": "x"}] * 2)
    (shown,) = first_samples(path, filename=path.name, task=TASK, input_column=PAIR, num_rows=1)
    assert (shown.text, shown.texts, shown.label) == (None, ["p" * 500, "h"], "x")


def test_shards_of_pairs_are_read_as_pairs_or_by_one_of_their_columns(tmp_path: Path) -> None:
    write_shards(as_csv(tmp_path), tmp_path / "shards", filename="a.csv", task=TASK, input_column=PAIR, target_columns=["label"])
    alone = read_dataset(tmp_path / "shards", task=TASK, input_column="hypothesis", target_columns=["label"])
    assert alone.splits["test"].inputs == ["is it?"]
    with pytest.raises(InvalidFile, match=r"'label' was not kept as the input: upload .* input_column=premise,label"):
        read_dataset(tmp_path / "shards", task=TASK, input_column=["premise", "label"])


def test_the_digest_of_a_pair_is_of_both_texts_and_their_order(tmp_path: Path) -> None:
    rows = [("a", "b"), ("a", "c"), ("b", "a"), ("a", "b"), ("a b", "")]
    path = write_parquet(
        tmp_path / "a", {"one": [a for a, _ in rows], "two": [b or "c" for _, b in rows], "label": [0, 1, 0, 1, 0]}
    )
    write_shards(path, tmp_path / "shards", filename="a", task=TASK, input_column=["one", "two"], target_columns=["label"])
    digests = pq.read_table(tmp_path / "shards" / "train-00000.parquet").column("_hash").to_pylist()
    assert digests[0] == digests[3]
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"premise": "a", "hypothesis": None}, "column 'hypothesis', line 1: there is no value"),
        ({"premise": " ", "hypothesis": "b"}, "column 'premise', line 1: the text is empty"),
        ({"premise": "a"}, "no input column 'hypothesis'"),
        ({"premise": "a", "hypothesis": ["b"]}, "column 'hypothesis', line 1: a text is a string"),
    ],
)
def test_a_half_of_a_pair_that_is_no_text_is_refused_by_its_name(tmp_path: Path, columns: dict[str, object], words: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{**columns, "label": 0}])
    assert words in refusal(path, task=TASK, input_column=PAIR)


def test_a_task_that_reads_no_pairs_and_columns_that_make_none_are_refused(tmp_path: Path) -> None:
    path = as_csv(tmp_path)
    for task in ("sentence-embedding", "causal-lm", "token-classification"):
        assert f"a {task} reads one column, and" in refusal(path, task=task, input_column=PAIR, targets=[])
    assert "two different ones" in refusal(path, task=TASK, input_column=["premise", "premise"])
    assert "both column 'label'" in refusal(path, task=TASK, input_column=["premise", "label"])
    assert "upload it with input_column=premise,hypothesis" in refusal(path, task=TASK)
