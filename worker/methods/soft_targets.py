"""The loss of soft targets: the divergence of the student's softened outputs from the teacher's.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531. B batch, C classes, τ temperature.
"""

from torch import Tensor
from torch.nn import functional

from service.spec.methods import Softened
from worker.methods.batch import DistillationBatch, Loss, batch_label_loss, row_mean
from worker.methods.context import LossContext
from worker.methods.response import bernoulli_divergence, kl_divergence, soft_cross_entropy
from worker.targets import Target, Targets


def soft_targets(
    method: Softened,
    targets: Targets,
    batch: DistillationBatch,
) -> Tensor:
    """``(1 − w) · divergence(teacher, student) + w · label loss``, w being the method's ``label_weight``.

    Several targets' divergences are summed; a number's is the squared error.
    """
    weight = method.label_weight
    if weight == 1:
        return batch_label_loss(targets, batch)
    student, teacher = targets.split(batch.student.logits), targets.split(batch.teacher_outputs.logits)
    parts = [_divergence(method, *each, batch.row_weights) for each in zip(targets, student, teacher, strict=True)]
    soft = parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
    if weight == 0:
        return soft
    return (1 - weight) * soft + weight * batch_label_loss(targets, batch)


def _divergence(method: Softened, target: Target, student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
    """The divergence of one target's outputs (B, its width), the batch's mean.

    The mean of ``multi_task.teacher_losses``'s divergences by sample would round otherwise and change recorded losses.
    """
    if target.classes is None:
        return _squared_error(student, teacher, weights)
    if target.is_multi_label:
        by_row = bernoulli_divergence(student, teacher, divergence=method.divergence, temperature=method.temperature)
        return row_mean(by_row, weights)
    match method.divergence:
        case "kl":
            return kl_divergence(student, teacher, temperature=method.temperature, weights=weights)
        case "cross-entropy":
            return soft_cross_entropy(student, teacher, temperature=method.temperature, weights=weights)
        case "mse":
            return _squared_error(student, teacher, weights)


def _squared_error(student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return functional.mse_loss(student, teacher)
    return row_mean((student - teacher).square().mean(dim=-1), weights)


def soft_target_loss(spec: Softened, context: LossContext) -> Loss:
    return lambda batch: soft_targets(spec, context.targets, batch)
