"""One split of a job's data: its samples as they are stored, with their labels, their places in files and their weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from service.formats import RowPlaces, SplitArrays
from worker.data.disk.stored import StoredInputs
from worker.data.epoch import TransferRows
from worker.data.images.canvas import WholeImages
from worker.data.prepared import PreparedSamples
from worker.data.preprocessing import RawInputs, take

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """N samples in a fixed order."""

    inputs: RawInputs
    """Images (N, C, H, W), uint8 or float32, or N texts, or N waveforms, as stored, before any network's preprocessing."""
    labels: Tensor
    """(N,) int64 for classification, else (N, M) float32, numbers standardised: see :mod:`worker.targets`."""
    answers: Sequence[str] | None = None
    """N texts that a causal language model learns to write after the inputs; None where it learns on the inputs alone."""
    is_packed: bool = False
    """Whether several texts share a row for a causal language model, rather than one text per row."""
    is_isolated: bool = False
    """Of texts that share rows: whether they are whole and do not attend to each other."""
    overlong: Literal["cut", "refuse"] = "cut"
    """What becomes of a text that is longer than a row of its own."""
    transfer: TransferRows | None = None
    """Of a training split: those of its samples, the last ones, that are transfer rows; None if there are none."""
    weights: Tensor | None = None
    """(N,) float32, of the samples of a training split in its losses, 1 on average; None where all count the same."""
    whole: WholeImages | None = None
    """Of a training split whose images are fitted to a canvas, and of which windows are taken: the images themselves."""
    part: SplitName | None = None
    """The split that it is of the job's data."""
    places: tuple[RowPlaces, ...] = ()
    """Where its samples stand in their files, one after the other; empty if they come from no file."""
    read: PreparedSamples = field(default_factory=PreparedSamples, compare=False, repr=False)
    """What networks read of it, kept so that nothing is tokenised twice."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def own(self) -> "Split":
        """The split without its transfer rows, for a network that learns from labels alone; the same object at each call."""
        if self.transfer is None:
            return self
        count = len(self) - self.transfer.count
        weights = None if self.weights is None else self.weights[:count]
        whole = None if self.whole is None else self.whole[:count]
        return replace(self, inputs=self.inputs[:count], labels=self.labels[:count], weights=weights, whole=whole, transfer=None)

    @cached_property
    def transferred(self) -> "Split":
        """The transfer rows alone, none or more; the same object at each call."""
        count = len(self) - (0 if self.transfer is None else self.transfer.count)
        inputs, labels = self.inputs[count:], self.labels[count:]
        return replace(self, inputs=inputs, labels=labels, weights=None, whole=None, transfer=None, places=())

    def at(self, rows: Tensor) -> "Split":
        """Selects the samples at ``rows`` (B,); their places in files are not told."""
        chosen = rows.numpy()
        answers = None if self.answers is None else take(self.answers, chosen)
        weights = None if self.weights is None else self.weights[rows]
        return replace(
            self,
            inputs=take(self.inputs, chosen),
            labels=self.labels[rows],
            answers=answers,
            weights=weights,
            whole=None if self.whole is None else self.whole.take(rows),
            transfer=None,
            places=(),
            read=PreparedSamples(),
        )

    def place_of(self, index: int) -> RowPlaces:
        """The place of one sample in its file."""
        row = index
        for places in self.places:
            if row < len(places):
                return places[np.array([row])]
            row -= len(places)
        return RowPlaces(self.part or "", np.array([index]))

    def place(self, index: int) -> str:
        """Names the place of one sample, for messages: ``test split, row 3 (line 5)``."""
        for places in self.places:
            if index < len(places):
                held_out = "" if places.source or places.split == self.part else f" (of the file's split {places.split!r})"
                return f"{self.name}{held_out}, {places.describe(index)}"
            index -= len(places)
        return f"{self.name}, row {index}"

    @property
    def name(self) -> str:
        """Its name for messages."""
        return "the split" if self.part is None else f"{self.part} split"


def is_images(inputs: RawInputs) -> bool:
    """Whether samples are images, in memory or stored."""
    return inputs.is_images if isinstance(inputs, StoredInputs) else isinstance(inputs, Tensor)


def places_of(split: SplitArrays) -> tuple[RowPlaces, ...]:
    """Where a split's samples stand in its file; empty if it has none."""
    return () if split.places is None else (split.places,)


def stored_inputs(inputs: RawInputs) -> RawInputs:
    """Samples of a reader: arrays as tensors, anything else as it is."""
    return torch.from_numpy(np.ascontiguousarray(inputs)) if isinstance(inputs, np.ndarray) else inputs
