"""Soft targets: the student learns the teacher's softened outputs.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531. B batch, C classes, τ temperature.
"""

from torch import Tensor
from torch.nn import functional

from service.spec.methods import SoftTargets
from worker.methods.labels import label_loss
from worker.methods.response import kl_divergence, soft_cross_entropy


def soft_targets(method: SoftTargets, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """``(1 − w) · divergence(teacher, student) + w · CE(labels, student)``, w being the method's ``label_weight``.

    Logits are (B, C), labels (B,).
    """
    weight = method.label_weight
    if weight == 1:
        return label_loss(student_logits, labels)
    soft = _divergence(method, student_logits, teacher_logits)
    if weight == 0:
        return soft
    return (1 - weight) * soft + weight * label_loss(student_logits, labels)


def _divergence(method: SoftTargets, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    match method.divergence:
        case "kl":
            return kl_divergence(student_logits, teacher_logits, temperature=method.temperature)
        case "cross-entropy":
            return soft_cross_entropy(student_logits, teacher_logits, temperature=method.temperature)
        case "mse":
            return functional.mse_loss(student_logits, teacher_logits)
