"""A split of the data as the training reads it: whole tensors, on the device where they fit.

There are no loader processes: a batch is one gather from memory, and its augmentation a few operations on the device. N samples,
B batch, W outputs.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from service.spec.training import TrainingSpec
from worker.data import Preprocessing, Split
from worker.data.augment import EpochViews
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.targets import MixedLabels

# Below this size the inputs are made once. Above it the stored form is kept (8-bit images: a quarter) and each batch is mapped.
PREPROCESS_ONCE_BYTES = 256 * 2**20
# Share of a GPU's free memory that data may take; the networks need the rest.
_DEVICE_MEMORY_SHARE = 0.5
_CHUNK_SAMPLES = 1024


@dataclass(frozen=True)
class Batch:
    """Some samples of a split, on the device."""

    indices: Tensor
    """(B,), places in the split, where the split lies."""
    epoch: int
    inputs: Tensor
    """(B, …), as the network reads them."""
    labels: Tensor
    """(B,) or (B, M)."""
    teacher_outputs: Tensor | None = None
    """(B, W), where the teacher was asked beforehand."""
    stored_view: Tensor | None = None
    """(B, …), augmented samples before any network's preprocessing; None without augmentation."""
    mixture: MixedLabels | None = None


@dataclass(frozen=True)
class Samples:
    """Inputs (N, …), labels (N,) or (N, M), the teacher's outputs (N, W) once it was asked. All lie on one device, ``home``.

    Of a causal language model the inputs are rows of tokens (N, L), and the labels say which of them the loss is on.
    """

    inputs: Tensor
    labels: Tensor
    preprocessing: Preprocessing | None
    """What is still to be done to a batch of inputs; None: they are as the network reads them."""
    device: torch.device
    """Where the batches go."""
    teacher_outputs: Tensor | None = None
    views: EpochViews | None = None
    """Of a training split with augmentation, whose inputs are not preprocessed yet."""

    @classmethod
    def of(cls, split: Split, preprocessing: Preprocessing, *, device: torch.device, views: EpochViews | None = None) -> Self:
        """Brings a split to the device where it fits, and preprocesses it at once where that is small."""
        home = torch.device("cpu")
        if isinstance(preprocessing, LanguagePreprocessing):
            rows = preprocessing.rows(split)
            inputs, labels = rows.ids, rows.mask
        else:
            inputs, labels = preprocessing.prepare(split.inputs), split.labels
        if device.type == "cuda" and not preprocessing.on_host:
            free_bytes, _ = torch.cuda.mem_get_info(device)
            home = device if inputs.nbytes <= free_bytes * _DEVICE_MEMORY_SHARE else home
        inputs, labels = inputs.to(home), labels.to(home)
        if views is None and preprocessing.keeps_size and len(inputs):
            num_values = preprocessing(inputs[:1]).numel() * len(inputs)
            if num_values * 4 <= PREPROCESS_ONCE_BYTES:
                whole = torch.cat([preprocessing(chunk) for chunk in torch.split(inputs, _CHUNK_SAMPLES)])
                return cls(whole, labels, None, device)
        return cls(inputs, labels, preprocessing, device, views=views)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def home(self) -> torch.device:
        """Where the data lie: ``device``, or the CPU when they are too large for it."""
        return self.inputs.device

    def with_teacher(self, teacher_outputs: Tensor) -> Self:
        """The same samples with the teacher's outputs (N, W) for them."""
        return replace(self, teacher_outputs=teacher_outputs.to(self.home))

    def batch(self, indices: Tensor, *, epoch: int = 0) -> Batch:
        """The samples at ``indices`` (B,) as the epoch, from 0, sees them."""
        indices = indices.to(self.home)
        labels = self._labels_of(indices)
        if self.views is not None:
            return self._augmented(self.views, indices, labels, epoch=epoch)
        inputs = self._ready(self.inputs.index_select(0, indices), self.preprocessing)
        taught = self.teacher_outputs
        if taught is not None:
            taught = taught.index_select(0, indices).to(self.device, non_blocking=True)
        return Batch(indices, epoch, inputs, labels, taught)

    def view_for(self, batch: Batch, preprocessing: Preprocessing) -> Tensor:
        """What another network reads, behind its own preprocessing, of the very view that an augmented batch shows; (B, …)."""
        if self.views is None or batch.stored_view is None:
            raise RuntimeError("only a batch of an augmented split has a view")
        inputs = self._ready(batch.stored_view, preprocessing)
        return self.views.read(inputs, batch.indices.to(inputs.device, non_blocking=True), epoch=batch.epoch)

    def inputs_from(self, start: int, count: int) -> Tensor:
        """``count`` inputs in the stored order, as the network reads them, on the device."""
        return self._ready(self.inputs[start : start + count], self.preprocessing)

    def _augmented(self, views: EpochViews, indices: Tensor, labels: Tensor, *, epoch: int) -> Batch:
        reads = self.preprocessing
        if reads is None:
            raise RuntimeError("an augmented split is preprocessed batch by batch")
        place = self.home if reads.on_host else self.device

        def fetch(places: Tensor) -> Tensor:
            return self.inputs.index_select(0, places).to(place, non_blocking=True)

        view = views.stored(fetch, indices, epoch=epoch)
        mixture = None
        if view.partners is not None and view.shares is not None:
            mixture = MixedLabels(self._labels_of(view.partners), view.shares.to(self.device, non_blocking=True))
        inputs = self._ready(view.inputs, reads)
        inputs = views.read(inputs, indices.to(inputs.device, non_blocking=True), epoch=epoch)
        return Batch(indices, epoch, inputs, labels, stored_view=view.inputs, mixture=mixture)

    def _labels_of(self, indices: Tensor) -> Tensor:
        return self.labels.index_select(0, indices).to(self.device, non_blocking=True)

    def _ready(self, stored: Tensor, preprocessing: Preprocessing | None) -> Tensor:
        if preprocessing is None:
            return stored.to(self.device, non_blocking=True)
        if preprocessing.on_host:
            return preprocessing(stored).to(self.device, non_blocking=True)
        return preprocessing(stored.to(self.device, non_blocking=True))


def split_epoch(order: Tensor, *, batch_size: int) -> list[Tensor]:
    """An epoch's order (N,) as batches. A single sample left over joins the batch before: batch norm cannot train on it."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def num_epochs(spec: TrainingSpec, num_samples: int) -> int:
    """Epochs that a training begins, unless it stops early."""
    if spec.max_steps is None:
        return spec.epochs or 1
    return math.ceil(spec.max_steps / steps_per_epoch(spec, num_samples))


def count_steps(spec: TrainingSpec, num_samples: int) -> int:
    """Optimizer steps of a training, unless it stops early."""
    return spec.max_steps or (spec.epochs or 1) * steps_per_epoch(spec, num_samples)


def steps_per_epoch(spec: TrainingSpec, num_samples: int) -> int:
    """Optimizer steps of one pass over the samples."""
    return math.ceil(count_batches(num_samples, batch_size=spec.batch_size) / spec.gradient_accumulation)


def count_batches(num_samples: int, *, batch_size: int) -> int:
    """How many batches :func:`split_epoch` makes."""
    whole, rest = divmod(num_samples, batch_size)
    return max(1, whole + (rest > 1))
