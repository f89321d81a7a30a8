"""The task's own loss: what a network learns from when it has no teacher."""

import torch
from torch import Tensor
from torch.nn import functional


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C) with labels (B,), batch mean, at least in float32."""
    return functional.cross_entropy(at_least_float32(logits), labels)


def at_least_float32(logits: Tensor) -> Tensor:
    """A loss in half precision would lose the small probabilities that the student is to learn from."""
    return logits.to(torch.float32) if logits.dtype in (torch.bfloat16, torch.float16) else logits
