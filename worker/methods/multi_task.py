"""The losses of several targets, and of a teacher head that predicts the teacher's outputs. B batch, W outputs, M targets."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import DistillationNetwork, MultiTask
from service.spec.methods.tasks import Divergence
from worker.methods.batch import DistillationBatch, Loss, batch_label_loss
from worker.methods.context import LossContext
from worker.methods.layer_pairs import TEACHER_HEAD
from worker.methods.response import bernoulli_divergence
from worker.targets import Target, Targets, target_losses


def teacher_losses(
    targets: Targets,
    student: Tensor,
    teacher: Tensor,
    *,
    divergence: Divergence,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Computes each target's divergence (M,) of student outputs (B, W) from teacher outputs (B, W), the mean over samples.

    ``weights`` (B,) multiply the samples' divergences.

    A target without outputs of the teacher (NaN) counts nothing.
    """
    losses = []
    for target, ours, theirs in zip(targets, targets.split(student), targets.split(teacher), strict=True):
        known = theirs.isfinite().all(dim=-1)
        each = _by_sample(target, ours, theirs.nan_to_num(nan=0.0), divergence=divergence, temperature=temperature)
        each = each * known if weights is None else each * known * weights
        losses.append(each.sum() / known.sum().clamp(min=1))
    return torch.stack(losses)


def _by_sample(target: Target, student: Tensor, teacher: Tensor, *, divergence: Divergence, temperature: float) -> Tensor:
    """(B,)."""
    if target.classes is None:
        return (student - teacher).square().mean(dim=-1)
    if target.is_multi_label:
        return bernoulli_divergence(student, teacher, divergence=divergence, temperature=temperature)
    if divergence == "mse":
        return (student - teacher).square().mean(dim=-1)
    ours = functional.log_softmax(student / temperature, dim=-1)
    theirs = functional.log_softmax(teacher / temperature, dim=-1)
    if divergence == "kl":
        return functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1) * temperature**2
    return -(theirs.exp() * ours).sum(dim=-1) * temperature**2


def distillation_network(method: DistillationNetwork, targets: Targets, batch: DistillationBatch) -> Tensor:
    """``label_weight · ℓ(y, ŷ) + λ · ℓ(T(x), T̂(x))``, T̂ the teacher head's prediction."""
    teacher_head = teacher_losses(
        targets,
        batch.student.features[TEACHER_HEAD],
        batch.teacher_outputs.logits,
        divergence=method.divergence,
        temperature=method.temperature,
        weights=batch.row_weights,
    )
    loss = method.teacher_weight * teacher_head.sum()
    if not method.label_weight:
        return loss
    return loss + method.label_weight * batch_label_loss(targets, batch)


class MultiTaskLoss(nn.Module):
    """``Σ_j w_j · (label_weight · ℓ_j(y_j, S_j) + λ · ℓ_j(T_j, S_j))``; with learned variances a part p is ½ (e^−s · p + s)."""

    def __init__(self, method: MultiTask, targets: Targets) -> None:
        super().__init__()
        self._method, self._targets = method, targets
        self.register_buffer("weights", torch.tensor([method.target_weights.get(target.name, 1.0) for target in targets]))
        self.log_variances = nn.Parameter(torch.zeros(len(targets))) if method.weighting == "uncertainty" else None

    weights: Tensor

    def forward(self, batch: DistillationBatch) -> Tensor:
        method, outputs = self._method, batch.student.logits
        losses = method.label_weight * target_losses(self._targets, outputs, batch.labels, batch.mixture, weights=batch.weights)
        if method.teacher_weight and batch.teacher is not None:
            losses = losses + method.teacher_weight * teacher_losses(
                self._targets,
                outputs,
                batch.teacher.logits,
                divergence=method.divergence,
                temperature=method.temperature,
                weights=batch.row_weights,
            )
        if self.log_variances is not None:
            weighted = 0.5 * ((-self.log_variances).exp() * losses + self.log_variances)
            losses = torch.where(losses == 0, 0.0, weighted)  # a batch without labels of a target leaves its variance alone
        return (self.weights * losses).sum()


def distillation_network_loss(spec: DistillationNetwork, context: LossContext) -> Loss:
    return lambda batch: distillation_network(spec, context.targets, batch)


def multi_task_loss(spec: MultiTask, context: LossContext) -> Loss:
    return MultiTaskLoss(spec, context.targets)
