"""Soft targets: the student learns the teacher's softened outputs.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531. B batch, C classes, τ temperature.

Two traps of public code are avoided: the sum over classes is averaged over the batch alone (``reduction="mean"`` would
divide by C as well), and the τ² that keeps the gradient's size independent of τ is there.
"""

from torch import Tensor
from torch.nn import functional

from service.spec.methods import SoftTargets
from worker.methods.labels import at_least_float32, label_loss


def soft_targets(method: SoftTargets, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """``(1 − w) · divergence(teacher, student) + w · CE(labels, student)``, w being the method's ``label_weight``.

    Logits are (B, C), labels (B,).
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits)
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


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``τ² · KL(p_t ‖ p_s)``, batch mean, wholly in log space, so that a probability of 0 costs nothing and breaks nothing."""
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=-1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``τ² · H(p_t, p_s)``, batch mean: the KL divergence and the teacher's entropy, with the same gradient."""
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.softmax(teacher_logits / temperature, dim=-1)
    return -(teacher * student).sum(dim=-1).mean() * temperature**2
