"""What a method's loss is made of: one step's outputs of student and teacher. B batch, W outputs, M targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from worker.targets import MixedLabels


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gave."""

    logits: Tensor
    """(B, W): class scores before the softmax, numbers as they are; several targets side by side."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Outputs of the modules that the method asked for, by module path; (B, …) each."""
    counted: Tensor | None = None
    """(B, L), which tokens of the input are no padding; None for a network that reads no tokens."""

    def at_least_float32(self) -> Self:
        """A loss in half precision would lose the small probabilities that the student is to learn from."""
        features = {path: at_least_float32(feature) for path, feature in self.features.items()}
        return replace(self, logits=at_least_float32(self.logits), features=features)


@dataclass(frozen=True)
class DistillationBatch:
    """One batch as the loss sees it."""

    student: Outputs
    teacher: Outputs | None
    """None where the network learns from its labels alone."""
    labels: Tensor
    """(B,) class indices, or (B, M): see :mod:`worker.targets`."""
    indices: Tensor
    """(B,), places of the samples in the training split."""
    epoch: float = 0.0
    """How many epochs are done; a warm-up counts by it."""
    mixture: MixedLabels | None = None
    """Where each sample is a mixture of two."""

    @property
    def teacher_outputs(self) -> Outputs:
        """The teacher's outputs, for a method that cannot do without."""
        if self.teacher is None:
            raise RuntimeError("this method's samples carry the teacher's outputs")
        return self.teacher


Loss = Callable[[DistillationBatch], Tensor]
"""A scalar, the batch's mean. One with weights or memory of its own is an ``nn.Module``, and is checkpointed."""


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision widened; anything else as it is."""
    return values.to(torch.float32) if values.dtype in (torch.bfloat16, torch.float16) else values
