"""The distillation losses: ``LOSSES`` has one entry for each name in ``service.spec.methods.METHODS``.

B batch, C classes. A loss is a scalar from one batch's student logits (B, C), teacher logits (B, C) and labels (B,).
"""

from collections.abc import Callable

from torch import Tensor

from service.spec.methods import MethodSpec
from worker.methods.labels import label_loss
from worker.methods.soft_targets import soft_targets

Loss = Callable[[MethodSpec, Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "soft-targets": soft_targets,
}

__all__ = ["LOSSES", "Loss", "label_loss", "soft_targets"]
