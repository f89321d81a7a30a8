"""Datasets as a host keeps them, in mapped shards, and jobs on them: one of each kind of data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.formats import write_shards
from service.formats.shards.mapped import map_shards
from service.spec import parse_spec
from tests.integration.test_chats import TEMPLATE
from tests.unit.formats.files import encoded, some_images, write_jsonl, write_npz, write_parquet
from tests.unit.formats.sounds import some_sound, sound_file

SOURCE = "file:/data/set"
ENCODER = "model:model_00000000000000000000000000"
WORDS = ["red", "green", "blue", "dog", "cat", "house", "tree", "sun", "moon", "star", "river", "hill"]
CNN: dict[str, Any] = {"name": "small-cnn", "width": 2}
BERT: dict[str, Any] = {
    "name": "transformers",
    "model_type": "bert",
    "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
}
GPT2: dict[str, Any] = {
    "name": "transformers",
    "model_type": "gpt2",
    "config": {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 16},
}
CLASSIFIED: dict[str, Any] = {
    "teacher": {"architecture": CNN, "training": {"epochs": 1, "batch_size": 16}},
    "student": {"architecture": CNN},
}
LONG = GPT2 | {"config": GPT2["config"] | {"n_positions": 48}}
WRITTEN: dict[str, Any] = {
    "task": "causal-lm",
    "teacher": {
        "architecture": GPT2,
        "tokenizer": {"train": "bpe", "vocab_size": 300, "max_length": 16},
        "training": {"epochs": 1, "batch_size": 8},
    },
    "student": {"architecture": GPT2},
    "method": {"name": "forward-kl"},
}
MIXED = [{"name": "flip"}, {"name": "crop", "padding": 2}, {"name": "mixup"}]
WORDPIECE: dict[str, Any] = {"train": "wordpiece", "vocab_size": 80, "max_length": 10}
TEXTS: dict[str, Any] = {
    "task": "text-classification",
    "teacher": {
        "architecture": BERT,
        "tokenizer": WORDPIECE,
        "training": {"epochs": 1, "batch_size": 16},
    },
    "student": {"architecture": BERT},
}
JOBS: dict[str, dict[str, Any]] = {
    "pictures": CLASSIFIED | {"task": "image-classification", "training": {"augment": MIXED}},
    "arrays": CLASSIFIED | {"task": "image-classification"},
    "clips": CLASSIFIED | {"task": "audio-classification"},
    "texts": TEXTS,
    "pairs": TEXTS | {"dataset": {"input": ["text", "answer"]}},
    "words": TEXTS
    | {"task": "token-classification", "teacher": TEXTS["teacher"] | {"tokenizer": WORDPIECE | {"max_length": 20}}},
    "sentences": {
        "task": "sentence-embedding",
        "teacher": {"source": ENCODER},
        "student": {"architecture": BERT | {"config": BERT["config"] | {"max_position_embeddings": 32}}},
        "method": {"name": "embedding"},
    },
    "packed": WRITTEN | {"dataset": {"packing": "packed"}},
    "padded": WRITTEN | {"dataset": {"packing": "padded"}},
    "answered": WRITTEN | {"dataset": {"targets": ["answer"]}},
    "isolated": WRITTEN | {"dataset": {"packing": "isolated"}},
    "chats": WRITTEN
    | {
        "dataset": {"input": "messages", "chat_template": TEMPLATE},
        "teacher": {
            "architecture": LONG,
            "tokenizer": WRITTEN["teacher"]["tokenizer"] | {"max_length": 48},
            "training": WRITTEN["teacher"]["training"],
        },
        "student": {"architecture": LONG},
    },
}


def job(kind: str, **dataset: Any) -> dict[str, Any]:
    """The spec of a job on data of that kind."""
    document = JOBS[kind] | {"dataset": {"source": SOURCE} | JOBS[kind].get("dataset", {}) | dataset}
    document["training"] = {"epochs": 2, "batch_size": 16, "checkpoint_steps": 2} | document.get("training", {})
    return parse_spec(document | {"evaluation": {"control": False}}).model_dump(mode="json")


def shards_of(kind: str, folder: Path, *, count: int = 90) -> Path:
    """The mapped shards of data of that kind."""
    task, dataset = JOBS[kind]["task"], job(kind)["dataset"]
    file = _file(kind, folder, count)
    columns = {"input_column": dataset["input"], "target_columns": dataset["targets"]}
    write_shards(file, folder / "shards", filename=file.name, task=task, **columns)
    map_shards(folder / "shards")
    return folder / "shards"


def _file(kind: str, folder: Path, count: int) -> Path:
    labels = [row % 3 for row in range(count)]
    if kind == "arrays":
        return write_npz(folder / "set.npz", image=_images(labels)[..., 0], label=np.array(labels))
    if kind == "pictures":
        return write_parquet(folder / "set.parquet", {"image": _files(map(encoded, _images(labels))), "label": labels})
    if kind == "clips":
        clips = (some_sound(3_000 + 100 * label + row, seed=row) for row, label in enumerate(labels))
        return write_parquet(folder / "set.parquet", {"audio": _files(map(sound_file, clips)), "label": labels})
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(3, 12))) for _ in labels]
    rows: list[Mapping[str, Any]] = [
        {
            "text": text,
            "label": f"c{label}",
            "answer": (answer := " ".join(text.split()[:2])),
            "tokens": text.split(),
            "tags": _tags(text),
            "messages": [{"role": "user", "content": answer}, {"role": "assistant", "content": text}],
        }
        for text, label in zip(texts, labels, strict=True)
    ]
    return write_jsonl(folder / "set.jsonl", rows)


def _tags(text: str) -> list[str | None]:
    """Of words: a colour, none, which is no label, or another word."""
    return [None if word == "sun" else "B-COLOUR" if word in WORDS[:3] else "O" for word in text.split()]


def _images(labels: list[int]) -> Any:
    dark = some_images(len(labels), 12, 12, 3) // 2
    return dark + np.array(labels, dtype=np.uint8)[:, None, None, None] * 40


def _files(contents: Any) -> list[dict[str, Any]]:
    return [{"bytes": content, "path": None} for content in contents]


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a finished job."""
    document: dict[str, Any] = json.loads((folder / "result" / "report.json").read_text(encoding="utf-8"))
    return document
