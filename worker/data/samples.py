"""A split of the data and the batches that are read from it: in whole tensors, on the training device if they fit, or on disk.

A batch in memory is one gather, and its augmentation a few operations on the device. Images and sound on disk are decoded and
augmented by loader processes ahead of the training, as far as it announces its batches; tokens on disk are gathered. N samples,
B batch, M targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from worker.data import Preprocessing, Split
from worker.data.augment import EpochViews, View
from worker.data.disk.mapped_rows import MappedRows
from worker.data.disk.stored import StoredInputs
from worker.data.disk.view_maker import ViewMaker, ViewsAhead
from worker.data.epoch import TransferRows
from worker.data.tensors import (
    Inputs,
    Mapped,
    SplitInputs,
    concatenate,
    home_of,
    in_memory,
    num_bytes,
    num_rows,
    num_values,
    only_tensor,
    read_rows,
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


class Ranks(Protocol):
    """The ranks that share the samples."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...


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
    """(B, …), the samples before any network's preprocessing, augmented; None if they are in memory and not augmented."""
    mixture: MixedLabels | None = None
    weights: Tensor | None = None
    """(B,), of the samples in a loss; None where all count the same."""


@dataclass(frozen=True)
class Samples:
    """Inputs (N, …) and labels (N,) or (N, M), both on one device, ``home``.

    For a causal language model the inputs are rows of tokens (N, L) and the labels their loss mask.
    """

    inputs: SplitInputs
    labels: Tensor
    preprocessing: Preprocessing | None
    """Applied to each batch of inputs; None if the inputs are preprocessed already."""
    device: torch.device
    """Device of the batches."""
    views: EpochViews | None = None
    """Augmentation of a training split, whose inputs are then still in their stored form."""
    mask: MappedRows | None = None
    """The loss mask (N, L) of rows of tokens on disk, whose labels are (N, 0)."""
    transfer: TransferRows | None = None
    """Those of the samples, the last ones, that are transfer rows; None if there are none."""
    weights: Tensor | None = None
    """(N,), where the labels are; None where all samples count the same."""

    @classmethod
    def of(cls, split: Split, preprocessing: Preprocessing, *, device: torch.device, views: EpochViews | None = None) -> Self:
        """Moves a split to the device if it fits there, and preprocesses it at once if the result is small."""
        home = torch.device("cpu")
        inputs, labels, _, mask = preprocessing.read(split)
        if isinstance(inputs, Mapped | StoredInputs):
            return cls(
                inputs, labels, preprocessing, device, views=views, weights=split.weights, mask=mask, transfer=split.transfer
            )
        inputs = in_memory(inputs)
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
        return replace(
            self,
            inputs=slice_rows(self.inputs, 0, count),
            labels=self.labels[:count],
            weights=None if self.weights is None else self.weights[:count],
            mask=self.mask and self.mask.narrow(0, count),
        )

    def announce(self, batches: Sequence[Tensor], *, epoch: int = 0, beside: Sequence["Samples"] = ()) -> None:
        """Says which batches (B,) are asked for next, so that they may be made ahead; costs or saves time alone.

        ``beside`` are other networks' samples of the split, of which each batch is asked for next.
        """
        if self._ahead is not None:
            others = [other._ahead for other in beside if other._ahead is not None]
            self._ahead.announce(batches, epoch, beside=others)

    def announce_all(self, count: int, ranks: Ranks) -> None:
        """Says that all samples are asked for in their order, ``count`` at once, by each rank its share."""
        if self._ahead is not None:
            self.announce(torch.split(torch.arange(len(self)), count)[ranks.rank :: ranks.world_size])

    @property
    def is_read_ahead(self) -> bool:
        """Whether announced batches are made before they are asked for."""
        return self._ahead is not None

    def batch(self, indices: Tensor, *, epoch: int = 0) -> Batch:
        """Returns the samples at ``indices`` (B,), augmented as in ``epoch``, counted from 0."""
        indices = indices.to(self.home)
        labels = self._labels_of(indices)
        if self._ahead is not None:
            return self._batch_of(self._ahead(indices, epoch), indices, labels, epoch=epoch)
        if self.views is not None:
            return self._augmented(self.views, indices, labels, epoch=epoch)
        inputs = self._preprocess(read_rows(self.inputs, indices), self.preprocessing)
        return Batch(indices, epoch, inputs, labels, weights=self._weights_of(indices))

    def view_for(self, batch: Batch, preprocessing: Preprocessing) -> Inputs:
        """Computes the inputs (B, …) of a network behind another ``preprocessing`` from the same view as an augmented batch."""
        if batch.stored_view is None:
            raise RuntimeError("only a batch of an augmented split, or of one on disk, has a view")
        inputs = only_tensor(self._preprocess(batch.stored_view, preprocessing))
        if self.views is None:
            return inputs
        return self.views.read(inputs, batch.indices.to(inputs.device, non_blocking=True), epoch=batch.epoch)

    def inputs_from(self, start: int, count: int) -> Inputs:
        """Returns ``count`` preprocessed inputs in the stored order, without augmentation, on the device."""
        if isinstance(self.inputs, Mapped | StoredInputs):
            return self.batch(torch.arange(start, min(start + count, len(self)))).inputs
        return self._preprocess(slice_rows(self.inputs, start, start + count), self.preprocessing)

    @cached_property
    def _ahead(self) -> ViewsAhead | None:
        """Of samples that have to be decoded."""
        if not isinstance(self.inputs, StoredInputs) or self.preprocessing is None:
            return None
        return ViewsAhead(ViewMaker(self.inputs, self.preprocessing.prepare, self.views))

    def _augmented(self, views: EpochViews, indices: Tensor, labels: Tensor, *, epoch: int) -> Batch:
        on_host = self.preprocessing is not None and self.preprocessing.on_host
        view_device = self.home if on_host else self.device

        def fetch(rows: Tensor) -> Tensor:
            return only_tensor(read_rows(self.inputs, rows)).to(view_device, non_blocking=True)

        return self._batch_of(views.stored(fetch, indices, epoch=epoch), indices, labels, epoch=epoch)

    def _batch_of(self, view: View, indices: Tensor, labels: Tensor, *, epoch: int) -> Batch:
        preprocessing = self.preprocessing
        if preprocessing is None:
            raise RuntimeError("views are preprocessed batch by batch")
        mixture = None
        if view.partners is not None and view.shares is not None:
            shares = view.shares.to(self.device, non_blocking=True)
            mixture = MixedLabels(self._labels_of(view.partners), shares, self._weights_of(view.partners))
        inputs = only_tensor(self._preprocess(view.inputs, preprocessing))
        if self.views is not None:
            inputs = self.views.read(inputs, indices.to(inputs.device, non_blocking=True), epoch=epoch)
        weights = self._weights_of(indices)
        return Batch(indices, epoch, inputs, labels, stored_view=view.inputs, mixture=mixture, weights=weights)

    def _labels_of(self, indices: Tensor) -> Tensor:
        labels = self.labels.index_select(0, indices) if self.mask is None else self.mask.select(indices)
        return labels.to(self.device, non_blocking=True)

    def _weights_of(self, indices: Tensor) -> Tensor | None:
        return None if self.weights is None else self.weights.index_select(0, indices).to(self.device, non_blocking=True)

    def _preprocess(self, stored: Inputs, preprocessing: Preprocessing | None) -> Inputs:
        if preprocessing is None:
            return to_device(stored, self.device, non_blocking=True)
        if preprocessing.on_host:
            return to_device(preprocessing(stored), self.device, non_blocking=True)
        return preprocessing(to_device(stored, self.device, non_blocking=True))
