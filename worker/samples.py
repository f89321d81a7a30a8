"""A split of the data as the training reads it: whole tensors, on the device where they fit.

There are no loader processes: a batch is one gather from memory. N samples, B batch, C channels or classes, H height, W width.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from worker.data import Preprocessing, Split

# Below this size the float32 images are made once. Above it the stored form is kept (8-bit: a quarter) and each batch is mapped.
PREPROCESS_ONCE_BYTES = 256 * 2**20
# Share of a GPU's free memory that data may take; the networks need the rest.
_DEVICE_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Samples:
    """Images (N, C, H, W), labels (N,), and the teacher's logits (N, C) once it was asked. All lie on one device, ``home``."""

    images: Tensor
    labels: Tensor
    preprocessing: Preprocessing | None
    """What is still to be done to a batch of images; None: they are as the network reads them."""
    device: torch.device
    """Where the batches go."""
    teacher_logits: Tensor | None = None

    @classmethod
    def of(cls, split: Split, preprocessing: Preprocessing, *, device: torch.device) -> Self:
        """Brings a split to the device where it fits, and preprocesses it at once where that is small."""
        images, labels, home = split.images, split.labels, torch.device("cpu")
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            home = device if images.nbytes <= free_bytes * _DEVICE_MEMORY_SHARE else home
        images, labels = images.to(home), labels.to(home)
        if images.numel() * 4 <= PREPROCESS_ONCE_BYTES:
            return cls(preprocessing(images), labels, None, device)
        return cls(images, labels, preprocessing, device)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def home(self) -> torch.device:
        """Where the data lie: ``device``, or the CPU when they are too large for it."""
        return self.images.device

    def with_teacher(self, teacher_logits: Tensor) -> Self:
        """The same samples with the teacher's logits (N, C) for them."""
        return replace(self, teacher_logits=teacher_logits.to(self.home))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images (B, C, H, W) in float32, labels (B,), teacher logits (B, C) of the samples ``indices`` (B,)."""
        indices = indices.to(self.home)
        images = self._ready(self.images.index_select(0, indices))
        labels = self.labels.index_select(0, indices).to(self.device, non_blocking=True)
        if self.teacher_logits is None:
            return images, labels, None
        return images, labels, self.teacher_logits.index_select(0, indices).to(self.device, non_blocking=True)

    def images_from(self, start: int, count: int) -> Tensor:
        """``count`` images in the stored order, in float32, on the device."""
        return self._ready(self.images[start : start + count])

    def _ready(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        return images if self.preprocessing is None else self.preprocessing(images)


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
