"""A split of the data in whole tensors, on the training device if they fit, and the batches that are read from it.

There are no loader processes: a batch is one gather from memory, and its augmentation a few operations on the device. N samples,
B batch, M targets.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from worker.data import Preprocessing, Split
from worker.data.augment import EpochViews
from worker.data.epoch import TransferRows
from worker.data.tensors import (
    Inputs,
    concatenate,
    home_of,
    num_bytes,
    num_rows,
    num_values,
    only_tensor,
    select_rows,
    slice_rows,
    to_device,
)
from worker.targets import MixedLabels

# Up to this size a split is preprocessed once. A larger one stays in its stored form (8-bit images: a quarter of the size), and
# each batch is preprocessed.
PREPROCESS_ONCE_BYTES = 256 * 2**20
# Share of a GPU's free memory that data may take; the networks need the rest.
_DEVICE_MEMORY_SHARE = 0.5
_CHUNK_SAMPLES = 1024


@dataclass(frozen=True)
class Batch:
    """Some samples of a split, on the device."""

    indices: Tensor
    """(B,), indices into the split, on the split's device."""
    epoch: int
    inputs: Inputs
    """(B, …), preprocessed."""
    labels: Tensor
    """(B,) or (B, M)."""
    stored_view: Tensor | None = None
    """(B, …), augmented samples before any network's preprocessing; None without augmentation."""
    mixture: MixedLabels | None = None
    weights: Tensor | None = None
    """(B,), of the samples in a loss; None where all count the same."""


@dataclass(frozen=True)
class Samples:
    """Inputs (N, …) and labels (N,) or (N, M), both on one device, ``home``.

    For a causal language model the inputs are rows of tokens (N, L) and the labels their loss mask.
    """

    inputs: Inputs
    labels: Tensor
    preprocessing: Preprocessing | None
    """Applied to each batch of inputs; None if the inputs are preprocessed already."""
    device: torch.device
    """Device of the batches."""
    views: EpochViews | None = None
    """Augmentation of a training split, whose inputs are then still in their stored form."""
    transfer: TransferRows | None = None
    """Those of the samples, the last ones, that are transfer rows; None if there are none."""
    weights: Tensor | None = None
    """(N,), where the labels are; None where all samples count the same."""

    @classmethod
    def of(cls, split: Split, preprocessing: Preprocessing, *, device: torch.device, views: EpochViews | None = None) -> Self:
        """Moves a split to the device if it fits there, and preprocesses it at once if the result is small."""
        home = torch.device("cpu")
        inputs, labels, _ = preprocessing.read(split)
        if device.type == "cuda" and not preprocessing.on_host:
            free_bytes, _ = torch.cuda.mem_get_info(device)
            home = device if num_bytes(inputs) <= free_bytes * _DEVICE_MEMORY_SHARE else home
        inputs, labels = to_device(inputs, home), labels.to(home)
        weights = None if split.weights is None else split.weights.to(home)
        count = num_rows(inputs)
        if views is None and preprocessing.keeps_size and count:
            values = num_values(preprocessing(slice_rows(inputs, 0, 1))) * count
            if values * 4 <= PREPROCESS_ONCE_BYTES:
                starts = range(0, count, _CHUNK_SAMPLES)
                whole = concatenate([preprocessing(slice_rows(inputs, start, start + _CHUNK_SAMPLES)) for start in starts])
                return cls(whole, labels, None, device, transfer=split.transfer, weights=weights)
        return cls(inputs, labels, preprocessing, device, views=views, transfer=split.transfer, weights=weights)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def home(self) -> torch.device:
        """Device of the data: ``device``, or the CPU if they are too large for it."""
        return home_of(self.inputs)

    def first(self, count: int) -> Self:
        """The first samples, ``count`` at most."""
        weights = None if self.weights is None else self.weights[:count]
        return replace(self, inputs=slice_rows(self.inputs, 0, count), labels=self.labels[:count], weights=weights)

    def batch(self, indices: Tensor, *, epoch: int = 0) -> Batch:
        """Returns the samples at ``indices`` (B,), augmented as in ``epoch``, counted from 0."""
        indices = indices.to(self.home)
        labels = self._labels_of(indices)
        if self.views is not None:
            return self._augmented(self.views, indices, labels, epoch=epoch)
        inputs = self._preprocess(select_rows(self.inputs, indices), self.preprocessing)
        return Batch(indices, epoch, inputs, labels, weights=self._weights_of(indices))

    def view_for(self, batch: Batch, preprocessing: Preprocessing) -> Inputs:
        """Computes the inputs (B, …) of a network behind another ``preprocessing`` from the same view as an augmented batch."""
        if self.views is None or batch.stored_view is None:
            raise RuntimeError("only a batch of an augmented split has a view")
        inputs = only_tensor(self._preprocess(batch.stored_view, preprocessing))
        return self.views.read(inputs, batch.indices.to(inputs.device, non_blocking=True), epoch=batch.epoch)

    def inputs_from(self, start: int, count: int) -> Inputs:
        """Returns ``count`` preprocessed inputs in the stored order, without augmentation, on the device."""
        return self._preprocess(slice_rows(self.inputs, start, start + count), self.preprocessing)

    def _augmented(self, views: EpochViews, indices: Tensor, labels: Tensor, *, epoch: int) -> Batch:
        preprocessing = self.preprocessing
        if preprocessing is None:
            raise RuntimeError("an augmented split is preprocessed batch by batch")
        view_device = self.home if preprocessing.on_host else self.device

        stored = only_tensor(self.inputs)

        def fetch(rows: Tensor) -> Tensor:
            return stored.index_select(0, rows).to(view_device, non_blocking=True)

        view = views.stored(fetch, indices, epoch=epoch)
        mixture = None
        if view.partners is not None and view.shares is not None:
            shares = view.shares.to(self.device, non_blocking=True)
            mixture = MixedLabels(self._labels_of(view.partners), shares, self._weights_of(view.partners))
        inputs = only_tensor(self._preprocess(view.inputs, preprocessing))
        inputs = views.read(inputs, indices.to(inputs.device, non_blocking=True), epoch=epoch)
        weights = self._weights_of(indices)
        return Batch(indices, epoch, inputs, labels, stored_view=view.inputs, mixture=mixture, weights=weights)

    def _labels_of(self, indices: Tensor) -> Tensor:
        return self.labels.index_select(0, indices).to(self.device, non_blocking=True)

    def _weights_of(self, indices: Tensor) -> Tensor | None:
        return None if self.weights is None else self.weights.index_select(0, indices).to(self.device, non_blocking=True)

    def _preprocess(self, stored: Inputs, preprocessing: Preprocessing | None) -> Inputs:
        if preprocessing is None:
            return to_device(stored, self.device, non_blocking=True)
        if preprocessing.on_host:
            return to_device(preprocessing(stored), self.device, non_blocking=True)
        return preprocessing(to_device(stored, self.device, non_blocking=True))
