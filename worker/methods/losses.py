"""From a method of the spec to the loss that a training minimises.

``LOSSES`` has one entry for each name in ``METHODS`` but those of causal language models: these compare distributions of tokens
(``worker.methods.sequence.TOKEN_LOSSES``). Each builder stands beside its formula. A loss is a scalar of one
:class:`DistillationBatch`, the method's own without its weights; one with weights or memory of its own is a module, which is
trained and checkpointed with the student.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from service.spec.methods import Labels, Weighted
from worker.methods.batch import DistillationBatch, Loss, batch_label_loss
from worker.methods.context import LossContext
from worker.methods.crd import ContrastiveLoss
from worker.methods.distilbert import DistilBertLoss
from worker.methods.embedding import EmbeddingLoss
from worker.methods.feature import FitNetLoss, VariationalLoss, attention_loss, neuron_selectivity_loss, similarity_loss
from worker.methods.multi_task import distillation_network_loss, multi_task_loss
from worker.methods.online import deep_mutual_loss
from worker.methods.relation import CongruenceLoss, probabilistic_loss, relational_loss
from worker.methods.response import OneForAllLoss, correlation_loss, decoupled_loss, standardized_loss, teacher_free_loss
from worker.methods.review import ReviewLoss
from worker.methods.soft_targets import soft_target_loss
from worker.targets import Targets

LOSSES: dict[str, Callable[[Any, LossContext], Loss]] = {
    "soft-targets": soft_target_loss,
    "distillation-network": distillation_network_loss,
    "multi-task": multi_task_loss,
    "dkd": decoupled_loss,
    "dist": correlation_loss,
    "logit-standardization": standardized_loss,
    "ofa": OneForAllLoss,
    "teacher-free": teacher_free_loss,
    "fitnet": FitNetLoss,
    "attention-transfer": attention_loss,
    "similarity-preserving": similarity_loss,
    "nst": neuron_selectivity_loss,
    "vid": VariationalLoss,
    "review": ReviewLoss,
    "distilbert": DistilBertLoss,
    "rkd": relational_loss,
    "pkt": probabilistic_loss,
    "correlation-congruence": CongruenceLoss,
    "crd": ContrastiveLoss,
    "embedding": EmbeddingLoss,
    "deep-mutual": deep_mutual_loss,
    "born-again": soft_target_loss,
    "teacher-assistant": soft_target_loss,
}
"""From a method's name to the function or class that builds its loss from its spec. Raises UnfitLayers."""

MEANS = {
    "labels",
    "soft-targets",
    "distillation-network",
    "multi-task",
    "dkd",
    "logit-standardization",
    "ofa",
    "teacher-free",
    "embedding",
    "deep-mutual",
    "born-again",
    "teacher-assistant",
}
"""The methods of one target whose loss is the mean over a batch's predictions of what each of them alone gives."""


class WeightedSum(nn.Module):
    """The losses of a spec's terms, each by its weight and with its share of the labels, on outputs in float32 at least."""

    def __init__(self, terms: Sequence[tuple[Any, Loss]], targets: Targets) -> None:
        super().__init__()
        self._terms, self._targets = terms, targets
        self.modules_of_terms = nn.ModuleList(loss for _, loss in terms if isinstance(loss, nn.Module))

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean over a batch's predictions, if all of them have labels."""
        by_class = any(spec.name == "logit-standardization" and spec.loss == "dist" for spec, _ in self._terms)
        return self._targets.count_alike and not by_class and all(spec.name in MEANS for spec, _ in self._terms)

    def forward(self, batch: DistillationBatch) -> Tensor:
        total: Tensor | None = None
        for spec, loss in self._terms:
            value = _weighted(spec, loss, batch, self._targets)
            total = value if total is None else total + value
        assert total is not None
        return total


def build_loss(spec: Any, context: LossContext) -> Loss:
    """Builds the loss of one term. Raises UnfitLayers."""
    return _labels(spec, context) if isinstance(spec, Labels) else LOSSES[spec.name](spec, context)


def _weighted(spec: Any, loss: Loss, batch: DistillationBatch, targets: Targets) -> Tensor:
    value = loss(batch)
    weight = spec.weight
    warmup = getattr(spec, "warmup_epochs", 0.0)
    if warmup > 0:
        weight *= min(1.0, batch.epoch / warmup)
    if weight != 1:
        value = weight * value
    # The loss of any other method includes its labels' part.
    label_weight = spec.label_weight if isinstance(spec, Weighted) else 0.0
    if not label_weight:
        return value
    return value + label_weight * batch_label_loss(targets, batch)


def _labels(spec: Labels, context: LossContext) -> Loss:
    return lambda batch: batch_label_loss(context.targets, batch)
