"""A split as one network reads it, each text tokenised once; what cannot be read is named by its place in the file. N samples."""

import math
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.data.dataset import Split
from worker.data.errors import UnusableData, UnusableRow
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.prepared import NO_LOSSES, Losses, Prepared
from worker.data.preprocessing import Preprocessing
from worker.data.tensors import Inputs
from worker.data.text import TextPreprocessing
from worker.data.tokenization import NO_TOKEN

_COUNTED_TEXTS = 2_000
"""Of the texts that fill a whole row, so many are tokenised again to see which of them were cut."""


class ReadSplit(NamedTuple):
    """A split as a network reads it."""

    inputs: Inputs
    """(N, …), prepared; of a causal language model rows (N, L)."""
    labels: Tensor
    """(N,) or (N, M); of a causal language model the rows' loss mask (N, L)."""
    losses: Losses
    """What of the texts the network does not read."""


def read_split(split: Split, preprocessing: Preprocessing) -> ReadSplit:
    """Prepares a split's samples for a network.

    Raises:
        UnusableData: a sample, or the split, cannot be read by this network; the message names the split, the row and the line.
    """
    if not isinstance(preprocessing, TextPreprocessing | LanguagePreprocessing):
        return ReadSplit(preprocessing.prepare(split.inputs), split.labels, NO_LOSSES)
    sources = (split.inputs, split.answers, preprocessing.tokenizer)
    others = {each.name: getattr(preprocessing, each.name) for each in fields(preprocessing) if each.name != "tokenizer"}
    settings = (type(preprocessing), others, split.is_packed)
    made = split.read.find(sources, settings)
    if made is None:
        try:
            made = _prepared(split, preprocessing)
        except UnusableRow as error:
            raise UnusableData(f"{split.place(error.index)}: {error.problem}") from error
        except UnusableData as error:
            raise UnusableData(f"{split.name}: {error}") from error
        split.read.keep(sources, settings, made)
    inputs, *masks = made.tensors
    return ReadSplit(inputs, masks[0] if masks else split.labels, made.losses)


def count_characters(split: Split) -> int:
    """Characters of a split's texts and answers; 0 of what is none."""
    return int(_lengths(split).sum())


def every_nth_text(split: Split, characters: int) -> Split:
    """Some of a split's texts, evenly spaced, of about so many characters, one text a row."""
    lengths = _lengths(split)
    step = max(1, math.ceil(lengths.sum() / characters))
    rows = np.arange(0, len(split), step)
    return replace(
        split,
        inputs=[split.inputs[row] for row in rows],
        labels=split.labels[torch.from_numpy(rows)],
        answers=None if split.answers is None else [split.answers[row] for row in rows],
        places=tuple(split.place_of(int(row)) for row in rows),
        is_packed=False,
        transfer=None,
    )


def _lengths(split: Split) -> NDArray[np.int64]:
    if not isinstance(split.inputs, list) or not all(isinstance(each, str) for each in split.inputs[:1]):
        return np.zeros(len(split), dtype=np.int64)
    answers = split.answers or [""] * len(split.inputs)
    return np.array([len(text) + len(answer) for text, answer in zip(split.inputs, answers, strict=True)], dtype=np.int64)


def _prepared(split: Split, preprocessing: TextPreprocessing | LanguagePreprocessing) -> Prepared:
    if isinstance(preprocessing, LanguagePreprocessing):
        rows = preprocessing.rows(split)
        return Prepared((rows.ids, rows.mask), rows.losses)
    ids = preprocessing.prepare(split.inputs)
    return Prepared((ids,), Losses(texts=_cut_texts(split, preprocessing, ids)))


def _cut_texts(split: Split, preprocessing: TextPreprocessing, ids: Tensor) -> tuple[int, int]:
    """How many texts are longer than the network reads, and the first of them; of very many an estimate."""
    if not preprocessing.has_limit or ids.shape[1] < preprocessing.max_length:
        return 0, 0
    full = (ids[:, -1] != NO_TOKEN).nonzero().flatten().tolist()
    some = [preprocessing.prompt + split.inputs[row] for row in full[:_COUNTED_TEXTS]]
    whole = preprocessing.tokenizer(some, return_attention_mask=False, verbose=False)["input_ids"] if some else []
    cut = [row for row, tokens in zip(full, whole, strict=False) if len(tokens) > preprocessing.max_length]
    return (round(len(full) * len(cut) / len(some)), cut[0]) if cut else (0, 0)
