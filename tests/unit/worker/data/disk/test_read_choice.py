"""Where samples are read from is chosen by the memory that they would take."""

from pathlib import Path

import pytest

from service.formats import write_shards
from service.formats.shards.index import read_index
from service.formats.shards.mapped import map_shards
from tests.unit.formats.files import write_jsonl
from worker.data.disk.read_choice import choose_reading


def test_words_take_more_memory_than_a_text_of_as_many_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "so far away", "tokens": ["so", "far", "away"], "tags": ["O", "O", "O"]}] * 50
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    folders = {"words": tmp_path / "words", "texts": tmp_path / "texts"}
    write_shards(
        file, folders["words"], filename=file.name, task="token-classification", input_column="tokens", target_columns=["tags"]
    )
    write_shards(file, folders["texts"], filename=file.name, task="causal-lm", input_column="text")
    for folder in folders.values():
        map_shards(folder)
    (split,) = read_index(folders["texts"]).splits.values()
    monkeypatch.setattr("worker.data.disk.read_choice.free_host_bytes", lambda: 4 * 10 * split.bytes)

    assert choose_reading("auto", [folders["texts"]], task="causal-lm").source == "memory"
    assert choose_reading("auto", [folders["words"]], task="token-classification").source == "shards"
    assert choose_reading("memory", [folders["words"]], task="token-classification").source == "memory"
