"""What a network cannot read is told before the first training step, with its place in the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_texts import BERT, BPE, WORDPIECE, network, train
from tests.unit.worker.preflight.jobs import normalised, refused
from worker.protocol import Failed, PhaseStarted

EMPTY = "\u200b\u200d"
"""A text of which no tokenizer of words leaves anything."""


def write(path: Path, rows: list[dict[str, Any]], *, blank_before: int | None = None) -> Path:
    lines = [json.dumps(row) for row in rows]
    if blank_before is not None:
        lines.insert(blank_before, "")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def classified(**places: int) -> list[dict[str, Any]]:
    """36 texts in three splits; a text without a token is at the given rows of splits."""
    splits = ["train"] * 24 + ["validation"] * 6 + ["test"] * 6
    rows = [
        {"text": f"{'red' if index % 2 else 'cat'} {index}", "label": "ab"[index % 2], "split": split}
        for index, split in enumerate(splits)
    ]
    for split, at in places.items():
        rows[splits.index(split) + at]["text"] = EMPTY
    return rows


def classification(path: Path, **changes: Any) -> dict[str, Any]:
    document = {
        "task": "text-classification",
        "dataset": {"source": f"file:{path}"},
        "teacher": {"architecture": network("bert", BERT), "tokenizer": BPE, "training": {"max_steps": 2}},
        "student": {"architecture": network("bert", BERT), "tokenizer": WORDPIECE},
        "training": {"max_steps": 2, "batch_size": 8},
    }
    return normalised(document | changes)


def language(path: Path, **dataset: Any) -> dict[str, Any]:
    gpt2 = network("gpt2", {"n_embd": 8, "n_layer": 1, "n_head": 2})
    document = {
        "task": "causal-lm",
        "dataset": {"source": f"file:{path}", **dataset},
        "teacher": {"architecture": gpt2, "tokenizer": WORDPIECE, "training": {"max_steps": 2}},
        "student": {"architecture": gpt2},
        "method": {"name": "forward-kl"},
        "training": {"max_steps": 2, "batch_size": 8},
    }
    return normalised(document)


def said(document: dict[str, Any], folder: Path) -> list[str]:
    """What the check says of it and what the job itself does, which trains nothing."""
    path = Path(document["dataset"]["source"].removeprefix("file:"))
    check = refused(document, folder, inputs={document["dataset"]["source"]: path})
    assert check.details["pointer"] == "/dataset/source"
    recorder = train(document, folder / "job")
    last = recorder.events[-1]
    assert isinstance(last, Failed), last
    assert (last.code, last.retryable) == ("invalid_data", False)
    assert not [event for event in recorder.events if isinstance(event, PhaseStarted)]
    return [check.message, last.message]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_text_without_a_token_is_named_before_the_teacher_trains(tmp_path: Path, split: str) -> None:
    path = write(tmp_path / "texts.jsonl", classified(**{split: 2}), blank_before=1)
    row = {"train": 2, "validation": 26, "test": 32}[split]
    expected = f"{split} split, row {row} (line {row + 2}): the text {EMPTY!r} holds no token: fill it, or remove the row"
    assert said(classification(path), tmp_path) == [f"{expected} (as the student reads it)"] * 2


def test_a_row_of_a_held_out_split_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": row["label"]} for row in classified(train=7)]
    document = classification(write(tmp_path / "texts.csv", []), dataset={"source": f"file:{tmp_path / 'texts.csv'}"})
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
    (tmp_path / "texts.csv").write_text("\n".join(lines), encoding="utf-8")
    seeds = {}
    for seed in range(12):
        document["dataset"]["split_seed"] = seed
        last = train(document, tmp_path / f"seed-{seed}").events[-1]
        assert isinstance(last, Failed)
        seeds[last.message.split(",")[0]] = last.message
    held_out = "test split (of the file's split 'train')"
    assert seeds[held_out].startswith(f"{held_out}, row 7 (line 9): the text ")


@pytest.mark.parametrize("column", ["text", "answer"])
@pytest.mark.parametrize("place", [0, 5])
def test_a_prompt_or_an_answer_without_a_token_is_named_before_the_teacher_trains(
    tmp_path: Path, column: str, place: int
) -> None:
    rows = [{"text": row["text"], "answer": "yes", "split": row["split"]} for row in classified()]
    rows[30 + place][column] = EMPTY
    path = write(tmp_path / "texts.jsonl", rows)
    what = {"text": "prompt", "answer": "answer"}[column]
    expected = f"test split, row {30 + place} (line {31 + place}): the {what} holds no token: fill it, or remove the row"
    assert said(language(path, targets=["answer"]), tmp_path) == [f"{expected} (as the teacher reads it)"] * 2


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_a_packed_text_without_a_token_is_named_too(tmp_path: Path, packing: str) -> None:
    rows = [{"text": row["text"] * 4, "split": row["split"]} for row in classified()]
    rows[33]["text"] = EMPTY
    path = write(tmp_path / "texts.jsonl", rows)
    expected = "test split, row 33 (line 34): the text holds no token: fill it, or remove the row"
    found = said(language(path, packing=packing, row_tokens=8), tmp_path)
    assert found == [f"{expected} (as the teacher reads it)"] * 2


def test_the_remedy_works(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.jsonl", [row for row in classified(test=2) if row["text"] != EMPTY])
    assert not isinstance(train(classification(path), tmp_path).events[-1], Failed)
