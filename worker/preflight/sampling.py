"""Which samples a check looks at: two to step on, some more to measure preprocessings and train tokenizers on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.formats import Waveform
from worker.data import Data, RawInputs, Split, SplitName
from worker.data.preprocessing import take

STEPPED = 2
"""Samples of a batch: batch norm cannot train on one."""
_MEASURED = 64
_MEASURED_CHARACTERS = 1_000_000
"""Of texts, for tokenizers: as many as are read in a second or two."""
_CHARACTERS_OF_A_TOKEN = 32
"""More than any text has, to have enough texts for a row of tokens."""


@dataclass(frozen=True)
class FewRows:
    """What a check looks at of a dataset, and how much there is of it; the dataset itself need not be kept."""

    measured: Data
    """What preprocessings are measured and tokenizers trained on."""
    stepped: Data
    """Two samples of each split, the longest, of two classes where there are; of packed texts enough for some rows."""
    counts: Mapping[SplitName, int]
    """Samples of each split of the whole."""
    characters: int
    """Of the whole training split's texts."""

    @property
    def holds_all_texts(self) -> bool:
        """Whether a tokenizer that is trained on ``measured`` is the job's own."""
        return len(self.measured.splits["train"]) == self.counts["train"]


def few_rows(data: Data, *, row_tokens: int) -> FewRows:
    """``row_tokens`` is the length of a packed row, where texts are packed."""
    stepped, measured = {}, {}
    for name, split in data.splits.items():
        lengths = _lengths(split.inputs)
        chosen = _first_texts(lengths, row_tokens * STEPPED * _CHARACTERS_OF_A_TOKEN) if split.is_packed else _two(split, lengths)
        stepped[name] = _of(split, chosen)
        measured[name] = _of(split, _more(split.inputs, lengths, chosen))
    return FewRows(
        measured=replace(data, splits=measured),
        stepped=replace(data, splits=stepped),
        counts={name: len(split) for name, split in data.splits.items()},
        characters=count_characters(data.splits["train"]),
    )


def count_characters(split: Split) -> int:
    """Of texts; 0 of what is none."""
    return sum(len(each) for each in split.inputs if isinstance(each, str)) if isinstance(split.inputs, list) else 0


def _lengths(inputs: RawInputs) -> NDArray[np.float64]:
    """Of texts in characters, of clips in seconds; images are all alike."""
    if isinstance(inputs, Sequence):
        return np.array([len(each.samples) / each.rate if isinstance(each, Waveform) else len(each) for each in inputs], float)
    return np.zeros(len(inputs))


def _two(split: Split, lengths: NDArray[np.float64]) -> NDArray[np.int64]:
    if split.answers is not None:
        lengths = lengths + _lengths(split.answers)
    longest_first = np.argsort(-lengths, kind="stable")
    first = longest_first[0]
    if split.labels.dim() == 1:
        others = split.labels.numpy() != int(split.labels[first])
        longest_first = np.concatenate([[first], longest_first[others[longest_first]], longest_first[1:]])
    return np.asarray(longest_first[:STEPPED], dtype=np.int64)


def _first_texts(lengths: NDArray[np.float64], characters: int) -> NDArray[np.int64]:
    enough = int(np.searchsorted(lengths.cumsum(), characters)) + 1
    return np.arange(min(enough, len(lengths)), dtype=np.int64)


def _more(inputs: RawInputs, lengths: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    is_text = isinstance(inputs, Sequence) and bool(len(inputs)) and isinstance(inputs[0], str)
    more = _first_texts(lengths, _MEASURED_CHARACTERS) if is_text else np.arange(min(_MEASURED, len(inputs)))
    return np.union1d(chosen, more)


def _of(split: Split, rows: NDArray[np.int64]) -> Split:
    def these(values: Any) -> Any:
        return take(values, rows)

    answers = None if split.answers is None else these(split.answers)
    return replace(split, inputs=these(split.inputs), labels=split.labels[torch.from_numpy(rows)], answers=answers)
