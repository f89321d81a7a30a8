"""Input of a method's loss: the outputs of student and teacher for one batch. B batch, L tokens, W outputs, M targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from worker.targets import MixedLabels, Targets, label_loss


@dataclass(frozen=True)
class Outputs:
    """Outputs of one forward pass."""

    logits: Tensor
    """(B, W): class scores before the softmax, numbers as they are; several targets side by side."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Outputs of the modules that the method reads, by module path; (B, …) each."""
    token_mask: Tensor | None = None
    """(B, L), True for tokens that are no padding; None for a network that reads no tokens."""

    def at_least_float32(self) -> Self:
        """Converts half precision to float32: a loss in half precision loses the small probabilities."""
        features = {path: at_least_float32(feature) for path, feature in self.features.items()}
        return replace(self, logits=at_least_float32(self.logits), features=features)


@dataclass(frozen=True)
class DistillationBatch:
    """One batch as a loss reads it."""

    student: Outputs
    teacher: Outputs | None
    """None if the network learns from its labels alone."""
    labels: Tensor
    """(B,) class indices, or (B, M): see :mod:`worker.targets`."""
    indices: Tensor
    """(B,), places of the samples in the training split."""
    epoch: float = 0.0
    """Number of epochs done; a warm-up depends on it."""
    mixture: MixedLabels | None = None
    """The second labels and the shares, if each sample is a mixture of two."""
    weights: Tensor | None = None
    """(B,), of the samples, 1 on average over the training split; None where all count the same."""

    @property
    def row_weights(self) -> Tensor | None:
        """What the teacher's answers to the rows count for (B,), those of a mixture by its shares."""
        if self.weights is None or self.mixture is None or self.mixture.partner_weights is None:
            return self.weights
        shares = self.mixture.shares
        return shares * self.weights + (1 - shares) * self.mixture.partner_weights

    @property
    def teacher_outputs(self) -> Outputs:
        """The teacher's outputs, for a method that requires them. Raises RuntimeError if there are none."""
        if self.teacher is None:
            raise RuntimeError("this method's samples carry the teacher's outputs")
        return self.teacher


Loss = Callable[[DistillationBatch], Tensor]
"""A scalar, the batch's mean. One with weights or memory of its own is an ``nn.Module``, and is checkpointed."""


def batch_label_loss(targets: Targets, batch: DistillationBatch) -> Tensor:
    """Computes the task's own loss of a batch, see :func:`worker.targets.label_loss`."""
    return label_loss(targets, batch.student.logits, batch.labels, batch.mixture, weights=batch.weights)


def row_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of the losses (B,) of a batch's rows, each times its weight."""
    return losses.mean() if weights is None else (losses * weights).mean()


def at_least_float32(values: Tensor) -> Tensor:
    """Converts half precision to float32 and leaves anything else as it is."""
    return values.to(torch.float32) if values.dtype in (torch.bfloat16, torch.float16) else values
