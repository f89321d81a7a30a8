"""A split of the data as the training reads it: whole tensors, on the device where they fit.

There are no loader processes: a batch is one gather from memory. N samples, B batch, W outputs.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from worker.data import Preprocessing, Split
from worker.data.language_preprocessing import LanguagePreprocessing

# Below this size the inputs are made once. Above it the stored form is kept (8-bit images: a quarter) and each batch is mapped.
PREPROCESS_ONCE_BYTES = 256 * 2**20
# Share of a GPU's free memory that data may take; the networks need the rest.
_DEVICE_MEMORY_SHARE = 0.5
_CHUNK_SAMPLES = 1024


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

    @classmethod
    def of(cls, split: Split, preprocessing: Preprocessing, *, device: torch.device) -> Self:
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
        if preprocessing.keeps_size and len(inputs):
            num_values = preprocessing(inputs[:1]).numel() * len(inputs)
            if num_values * 4 <= PREPROCESS_ONCE_BYTES:
                whole = torch.cat([preprocessing(chunk) for chunk in torch.split(inputs, _CHUNK_SAMPLES)])
                return cls(whole, labels, None, device)
        return cls(inputs, labels, preprocessing, device)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def home(self) -> torch.device:
        """Where the data lie: ``device``, or the CPU when they are too large for it."""
        return self.inputs.device

    def with_teacher(self, teacher_outputs: Tensor) -> Self:
        """The same samples with the teacher's outputs (N, W) for them."""
        return replace(self, teacher_outputs=teacher_outputs.to(self.home))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs (B, …), labels (B,) or (B, M), teacher outputs (B, W) of the samples ``indices`` (B,), on the device."""
        indices = indices.to(self.home)
        inputs = self._ready(self.inputs.index_select(0, indices))
        labels = self.labels.index_select(0, indices).to(self.device, non_blocking=True)
        if self.teacher_outputs is None:
            return inputs, labels, None
        return inputs, labels, self.teacher_outputs.index_select(0, indices).to(self.device, non_blocking=True)

    def inputs_from(self, start: int, count: int) -> Tensor:
        """``count`` inputs in the stored order, as the network reads them, on the device."""
        return self._ready(self.inputs[start : start + count])

    def _ready(self, stored: Tensor) -> Tensor:
        if self.preprocessing is None:
            return stored.to(self.device, non_blocking=True)
        if self.preprocessing.on_host:
            return self.preprocessing(stored).to(self.device, non_blocking=True)
        return self.preprocessing(stored.to(self.device, non_blocking=True))


def split_epoch(order: Tensor, *, batch_size: int) -> list[Tensor]:
    """An epoch's order (N,) as batches. A single sample left over joins the batch before: batch norm cannot train on it."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def count_batches(num_samples: int, *, batch_size: int) -> int:
    """How many batches :func:`split_epoch` makes."""
    whole, rest = divmod(num_samples, batch_size)
    return max(1, whole + (rest > 1))
