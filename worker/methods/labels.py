"""The task's own loss: what a network learns from when it has no teacher."""

from torch import Tensor
from torch.nn import functional


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C) with labels (B,), batch mean."""
    return functional.cross_entropy(logits, labels)
