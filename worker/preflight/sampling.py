"""The samples that a check reads: two for a step, some more to fit preprocessings and to train tokenizers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.formats import RowPlaces, Waveform
from service.spec import JobSpec
from worker.data import Data, Preprocessing, RawInputs, Split, SplitName
from worker.data.disk.stored import StoredInputs
from worker.data.epoch import TransferRows
from worker.data.preprocessing import take
from worker.data.raw_inputs import RawSample, num_characters
from worker.data.split import is_images
from worker.data.tensors import num_rows
from worker.data.text.language_preprocessing import USUAL_ROW_TOKENS
from worker.data.text.reading import count_characters

STEP_SAMPLES = 2
"""Batch size of a step: batch norm cannot train on one sample."""
_FITTING_SAMPLES = 64
_FITTING_CHARACTERS = 1_000_000
"""Of texts, for tokenizers: about two seconds of training."""
_CHARACTERS_OF_A_TOKEN = 32
"""An upper bound, so that the texts fill a row of tokens."""


@dataclass(frozen=True)
class SampledData:
    """The samples that a check reads, and the size of the whole dataset, which need not stay in memory."""

    fitting_data: Data
    """Samples that preprocessings are fitted and tokenizers trained on."""
    step_data: Data
    """Two samples of each split: the longest, of two classes if there are two; of packed texts, enough for some rows."""
    counts: Mapping[SplitName, int]
    """Samples of each split of the whole."""
    characters: int
    """In the texts of the whole training split."""
    transfer: TransferRows | None = None
    """Of the whole training split; a check reads none of them, and ``counts`` leaves them out."""

    @property
    def holds_all_texts(self) -> bool:
        """Whether a tokenizer that is trained on ``fitting_data`` is the job's own."""
        return self.transfer is None and len(self.fitting_data.splits["train"]) == self.counts["train"]


def row_tokens_of(spec: JobSpec) -> int:
    """The length of a packed row of a job's networks, at most."""
    tokenizers = [*(each.tokenizer for each in spec.teachers.values()), spec.student.tokenizer]
    longest = [each.max_length for each in tokenizers if each is not None]
    return spec.dataset.row_tokens or max(longest, default=USUAL_ROW_TOKENS)


def sample_data(data: Data, *, row_tokens: int) -> SampledData:
    """``row_tokens`` is the length of a packed row, where texts are packed."""
    step_data, fitting_data = {}, {}
    whole = {name: split.own for name, split in data.splits.items()}
    for name, split in whole.items():
        lengths = _lengths(split.inputs)
        chosen = (
            _first_texts(lengths, row_tokens * STEP_SAMPLES * _CHARACTERS_OF_A_TOKEN) if split.is_packed else _two(split, lengths)
        )
        step_data[name] = rows_of(split, chosen)
        fitting_data[name] = rows_of(split, _more(split.inputs, lengths, chosen))
    return SampledData(
        fitting_data=replace(data, splits=fitting_data),
        step_data=replace(data, splits=step_data),
        counts={name: len(split) for name, split in whole.items()},
        characters=count_characters(whole["train"]),
        transfer=data.splits["train"].transfer,
    )


def count_rows(preprocessing: Preprocessing, sampled: SampledData) -> tuple[int, bool]:
    """Rows of tokens in the packed training split, and whether they are counted rather than estimated."""
    part = sampled.fitting_data.splits["train"]
    made = num_rows(preprocessing.read(part).inputs)
    if sampled.holds_all_texts:
        return made, True
    return max(1, round(made * sampled.characters / count_characters(part))), False


def first_texts(split: Split, characters: int) -> Split:
    """The first texts of a split, of about so many characters with their answers; of transfer rows the first of them as well."""
    lengths = _lengths(split.inputs) + (0 if split.answers is None else _lengths(split.answers))
    own = len(split.own)
    rows = _first_texts(lengths[:own], characters)
    if split.transfer is not None and split.transfer.count:
        rows = np.concatenate([rows, own + _first_texts(lengths[own:], characters)])
    return split if len(rows) == len(split) else rows_of(split, rows)


def texts_of_rows(split: Split, count: int, *, row_tokens: int) -> Split:
    """The first texts of a split of packed ones, which fill so many rows, if all of them do."""
    return first_texts(split, row_tokens * count * _CHARACTERS_OF_A_TOKEN)


def _lengths(inputs: RawInputs) -> NDArray[np.float64]:
    """Of texts in characters, of clips in seconds; images are all alike."""
    if is_images(inputs):
        return np.zeros(len(inputs))
    if isinstance(inputs, StoredInputs) and inputs.kind == "audio":
        return inputs.seconds()
    if isinstance(inputs, Sequence):
        return np.array([_length(each) for each in inputs], float)
    return np.zeros(len(inputs))


def _length(sample: RawSample) -> float:
    return len(sample.samples) / sample.rate if isinstance(sample, Waveform) else num_characters(sample)


def _two(split: Split, lengths: NDArray[np.float64]) -> NDArray[np.int64]:
    if split.answers is not None:
        lengths = lengths + _lengths(split.answers)
    longest_first = np.argsort(-lengths, kind="stable")
    first = longest_first[0]
    if split.labels.dim() == 1:
        others = split.labels.numpy() != int(split.labels[first])
        longest_first = np.concatenate([[first], longest_first[others[longest_first]], longest_first[1:]])
    return np.asarray(longest_first[:STEP_SAMPLES], dtype=np.int64)


def _first_texts(lengths: NDArray[np.float64], characters: int) -> NDArray[np.int64]:
    enough = int(np.searchsorted(lengths.cumsum(), characters)) + 1
    return np.arange(min(enough, len(lengths)), dtype=np.int64)


def _more(inputs: RawInputs, lengths: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    is_text = not is_images(inputs) and isinstance(inputs, Sequence) and bool(len(inputs)) and not isinstance(inputs[0], Waveform)
    more = _first_texts(lengths, _FITTING_CHARACTERS) if is_text else np.arange(min(_FITTING_SAMPLES, len(inputs)))
    return np.union1d(chosen, more)


def rows_of(split: Split, rows: NDArray[np.int64]) -> Split:
    """The samples at ``rows``, with their places."""

    def these(values: Any) -> Any:
        return take(values, rows)

    transfer = split.transfer and replace(split.transfer, count=int((rows >= len(split.own)).sum()))
    return replace(
        split,
        inputs=these(split.inputs),
        labels=split.labels[torch.from_numpy(rows)],
        answers=None if split.answers is None else these(split.answers),
        weights=None if split.weights is None else split.weights[torch.from_numpy(rows)],
        whole=None if split.whole is None else split.whole.take(torch.from_numpy(rows)),
        transfer=transfer,
        places=tuple(_places_of(split, rows)),
    )


def _places_of(split: Split, rows: NDArray[np.int64]) -> Iterator[RowPlaces]:
    """The places of some rows, in their order; none where the split has none."""
    if not split.places or not len(rows):
        return
    ends = np.cumsum([len(places) for places in split.places])
    files = np.searchsorted(ends, rows, side="right")
    for piece in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(files)) + 1):
        file = int(files[piece[0]])
        yield split.places[file][rows[piece] - (ends[file] - len(split.places[file]))]
