"""Token classifiers, compared with their library on each row of words alone.

A word's outputs are those at its first piece, as ``word_ids`` of the library's tokenizer tell it. No row is cut: one that does
not fit is refused, as words would be lost.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification, AutoTokenizer

from service.spec.data import DatasetSpec
from service.spec.transformers_fit import classifiers
from tests.truth.service_path import read_as_a_job
from tests.truth.subject import Outcome, Settings, Subject
from tests.truth.text_networks import TEXT_SWITCHES, WORDS, save_network
from tests.truth.texts import REFUSALS, TOLERANCE, call
from worker.trained import load_teacher

TAGS = ["B-ORG", "B-PER", "I-ORG", "I-PER", "O"]
_SHARED = ["special tokens", "letters", "pad token", "padding side", "token types", "names of special tokens"]
WORD_SWITCHES = {
    "tokenizer": ["wordpiece", "bpe", "bpe behind spaces", "unigram", "unigram, one space"],
    **{name: TEXT_SWITCHES[name] for name in _SHARED},
    "cut at": ["nothing", "the tokenizer's limit"],
    "words": ["few", "many", "odd"],
    "order of the names": ["the dataset's", "another"],
    "file": ["jsonl", "parquet"],
}
"""The switches of a tokenizer that reads words, what its network says of padding, and the rows of words."""
_ALONE = {"token types": ["given, not 0"], "words": ["more than it has positions", "with one of nothing"]}

_FEW = [
    ["a", "beta", "gamma"],
    ["delta", "zeta", "eta", "a", "iota", "beta"],
    ["iota"],
    ["alphas", "theta"],
    ["eta", "a", "etas", "b"],
]


def token_classification() -> Subject:
    """Networks of every model type, each with its own names of the tags."""
    return Subject("token-classification", classifiers("token-classification"), WORD_SWITCHES, _try_network, _ALONE)


def rows_of(kind: str) -> list[list[str]]:
    """Rows of words; those of several lengths stand in one batch."""
    more = {
        "few": [],
        "many": [[WORDS[(place * 3) % 8] for place in range(14)], [WORDS[place % 7] for place in range(9)]],
        "odd": [
            ["Straße", "ÉTÉ", "日", "x"],
            ["[SEP]", "alpha", "[PAD]", "eta[SEP]"],
            ["ALPHA", ".", "a-b", "don't"],
            ["a\u00a0b", " beta ", "a delta", "\N{WOMAN}"],
        ],
        "more than it has positions": [[WORDS[(place * 3) % 8] for place in range(60)]],
        "with one of nothing": [["alpha", "\u200b\u200d", "beta"]],
    }
    return [*_FEW, *more[kind]]


def _try_network(model_type: str, settings: Settings, folder: Path) -> Outcome:
    names = TAGS if settings["order of the names"] == "the dataset's" else TAGS[::-1]
    saved = folder / "teacher"
    id2label, label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    unused = {"cut side": "right"}
    save_network(AutoModelForTokenClassification, model_type, {**unused, **settings}, saved, id2label=id2label, label2id=label2id)
    rows = rows_of(settings["words"])
    path = folder / f"rows.{settings['file']}"
    _write_rows(path, rows * 3)
    try:
        dataset = DatasetSpec(source=f"file:{path}", input="tokens", targets=["tags"])
        data = read_as_a_job(dataset, path, "token-classification")
        teacher = load_teacher(saved, source="model:saved", data=data)
        computed = {part: teacher.outputs(split) for part, split in data.splits.items()}
    except REFUSALS as error:
        return Outcome(str(error))
    tokenizer = AutoTokenizer.from_pretrained(saved)
    model = AutoModelForTokenClassification.from_pretrained(saved).eval()
    order = [names.index(name) for name in data.targets.classes]
    own = {tuple(words): _alone(model, tokenizer, words)[:, order] for words in rows}
    read = {part: [tuple(words) for words in split.inputs] for part, split in data.splits.items()}
    assert {words for split in read.values() for words in split} == set(own), "the rows that were read"
    for part, split in read.items():
        expected = torch.cat([own[words] for words in split])
        # Rounding is that of the largest values in the network.
        tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(computed[part], expected, rtol=0, atol=tolerance)
    return Outcome()


def _alone(model: Any, tokenizer: Any, words: Sequence[str]) -> Tensor:
    """The library's logits (M, W) at the first piece of each of the M words."""
    inputs = tokenizer(list(words), is_split_into_words=True, return_tensors="pt")
    places = inputs.word_ids()
    logits: Tensor = call(model, inputs).logits[0]
    return logits[[places.index(number) for number in range(len(words))]]


def _write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Writes words with tags, all of which occur."""
    tags = [[TAGS[1], TAGS[3], TAGS[4], TAGS[0], TAGS[2]], [TAGS[4]]]
    columns = {
        "tokens": rows,
        "tags": [[tags[index % 2][place % len(tags[index % 2])] for place in range(len(row))] for index, row in enumerate(rows)],
    }
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return
    lines = (json.dumps(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))
    path.write_text("\n".join(lines), encoding="utf-8")
