"""What networks read of texts on disk is what they read of the same texts in memory, refusals and counts included."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.formats import write_shards
from service.formats.shards.mapped import map_shards
from service.spec.data import DatasetSpec
from service.spec.inputs import TokenizerSpec
from service.spec.tasks import TaskName
from tests.unit.formats.files import write_jsonl
from tests.unit.worker.data.text.chat_templates import CHATML
from worker.data.dataset import Data, load_data
from worker.data.disk.stored import Reading
from worker.data.errors import UnusableData
from worker.data.prepared import ReadSplit
from worker.data.preprocessing import Preprocessing
from worker.data.tensors import read_rows, row_width
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.words import train_word_preprocessing
from worker.tasks import TASKS

WORDS = ["Ada", "lives", "in", "Oslo", "unbelievably", "far", "."]


def both(task: TaskName, rows: Sequence[Mapping[str, Any]], folder: Path, **dataset: Any) -> list[Data]:
    """The data of a file in memory, and of its shards on disk."""
    spec = DatasetSpec.model_validate({"source": "file:/data/rows", "validation_fraction": 0.2, "test_fraction": 0.2} | dataset)
    file = write_jsonl(folder / "rows.jsonl", rows)
    write_shards(file, folder / "shards", filename=file.name, task=task, input_column=spec.inputs, target_columns=spec.targets)
    map_shards(folder / "shards")
    paths = ((file, None), (folder / "shards", Reading(folder)))
    return [load_data(spec.model_copy(update={"read": "shards"}), path, task=TASKS[task], reading=each) for path, each in paths]


def assert_same(reads: Preprocessing, data: Sequence[Data], *, part: Any = "train") -> None:
    """Checks that a network reads the same of both, all at once and row by row, or refuses both with the same words."""
    in_memory, on_disk = (_read(reads, each, part) for each in data)
    if isinstance(in_memory, str) or isinstance(on_disk, str):
        assert on_disk == in_memory
        return
    count = len(in_memory.labels)
    assert row_width(on_disk.inputs) == row_width(in_memory.inputs)
    assert on_disk.losses == in_memory.losses
    rows = torch.arange(count).flip(0)
    torch.testing.assert_close(read_rows(on_disk.inputs, rows), read_rows(in_memory.inputs, rows), rtol=0, atol=0)
    labels = on_disk.labels[rows] if on_disk.mask is None else on_disk.mask.select(rows)
    torch.testing.assert_close(labels, in_memory.labels[rows], rtol=0, atol=0)


def _read(reads: Preprocessing, data: Data, part: Any) -> ReadSplit | str:
    try:
        return reads.read(data.splits[part])
    except UnusableData as error:
        return str(error)


@pytest.mark.parametrize("fault", [None, "\u200b", "far " * 40])
def test_words(fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.data.text.words._BATCH_ROWS", 16)
    rows = [{"tokens": WORDS[: 1 + row % 7], "tags": [None if row % 5 else "A"] * (1 + row % 7)} for row in range(60)]
    if fault is not None:
        words = fault.split(" ")
        rows[41] = {"tokens": [word for word in words if word], "tags": None}
    data = both("token-classification", rows, tmp_path, input="tokens", targets=["tags"])
    tokenizer = TokenizerSpec(train="wordpiece", vocab_size=60, max_length=24)
    reads, again = (train_word_preprocessing(each.splits["train"].inputs, tokenizer) for each in data)

    assert again.parameters == reads.parameters
    for part in ("train", "validation", "test"):
        torch.testing.assert_close(data[1].splits[part].labels, data[0].splits[part].labels, rtol=0, atol=0)
        assert_same(reads, data, part=part)


def chats(*, with_prompts: bool) -> list[dict[str, Any]]:
    """Chats of one to three exchanges; among them prompts, some that name a special token, and some that fill no row."""
    rows = []
    for row in range(300):
        exchanges = [
            [{"role": "user", "content": f"say {row % 9}" + " far" * (row % 7)}, {"role": "assistant", "content": f"{row % 11}"}]
            for _ in range(1 + row % 3)
        ]
        messages = [message for exchange in exchanges for message in exchange]
        if row % 13 == 5:
            messages[0] = {"role": "user", "content": "<|eot|> is a name"}
        if with_prompts and row % 10 == 7:
            messages = [*messages, {"role": "user", "content": "and then, far away?"}][-(1 + row % 2) :]
            messages = [message for message in messages if message["role"] == "user"][-1:]
        rows.append({"messages": messages, "split": "train" if row < 290 else ("validation", "test")[row % 2]})
    return rows


@pytest.mark.parametrize("packing", ["padded", "isolated"])
def test_chats(packing: str, tmp_path: Path) -> None:
    rows = chats(with_prompts=True)
    rows[280]["messages"] = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "far " * 80}]
    for row in rows[290:]:
        row["messages"] = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    data = both("causal-lm", rows, tmp_path, input="messages", targets=[], packing=packing)
    reads = LanguagePreprocessing(CHATML.tokenizer(), 90, reads_chats=True)
    for part in ("train", "validation"):
        assert_same(reads, data, part=part)
    losses = reads.read(data[1].splits["train"]).losses
    assert losses.texts == (1, 280)
    assert losses.turns[0] > 1
    assert losses.markup[0] > 1


def test_a_chat_that_fills_no_row_is_refused_with_the_same_place(tmp_path: Path) -> None:
    data = both("causal-lm", chats(with_prompts=False), tmp_path, input="messages", targets=[])
    assert_same(LanguagePreprocessing(CHATML.tokenizer(), 24, reads_chats=True), data)
    for each in data:
        each.splits["train"] = replace(each.splits["train"], overlong="refuse")
    assert_same(LanguagePreprocessing(CHATML.tokenizer(), 60, reads_chats=True), data)


@pytest.mark.parametrize(("targets", "packing"), [([], "isolated"), (["answer"], "isolated"), (["answer"], "padded")])
def test_texts(targets: list[str], packing: str, tmp_path: Path) -> None:
    rows = [{"text": "far " * (1 + row % 9) + f"{row}", "answer": f"away {row % 40}" * (1 + row % 5)} for row in range(300)]
    data = both("causal-lm", rows, tmp_path, input="text", targets=targets, packing=packing)
    reads = LanguagePreprocessing(CHATML.tokenizer(), 30)
    assert_same(reads, data)
    assert reads.read(data[1].splits["train"]).losses.texts[0] > 1
