"""The loss of soft targets: the divergence of the student's softened outputs from the teacher's.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531. B batch, C classes, τ temperature.
"""

from torch import Tensor
from torch.nn import functional

from service.spec.methods import Softened
from worker.methods.batch import Loss
from worker.methods.context import LossContext
from worker.methods.response import kl_divergence, soft_cross_entropy
from worker.targets import MixedLabels, Target, Targets, label_loss


def soft_targets(
    method: Softened,
    targets: Targets,
    student_outputs: Tensor,
    teacher_outputs: Tensor,
    labels: Tensor,
    *,
    mixture: MixedLabels | None = None,
) -> Tensor:
    """``(1 − w) · divergence(teacher, student) + w · label loss``, w being the method's ``label_weight``.

    Outputs are (B, W), labels (B,) or (B, M). Several targets' divergences are summed; a number's is the squared error.
    """
    weight = method.label_weight
    if weight == 1:
        return label_loss(targets, student_outputs, labels, mixture)
    student, teacher = targets.split(student_outputs), targets.split(teacher_outputs)
    parts = [_divergence(method, *each) for each in zip(targets, student, teacher, strict=True)]
    soft = parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
    if weight == 0:
        return soft
    return (1 - weight) * soft + weight * label_loss(targets, student_outputs, labels, mixture)


def _divergence(method: Softened, target: Target, student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence of one target's outputs (B, its width), the batch's mean.

    The mean of ``multi_task.teacher_losses``'s divergences by sample would round otherwise and change recorded losses.
    """
    if target.classes is None:
        return functional.mse_loss(student, teacher)
    match method.divergence:
        case "kl":
            return kl_divergence(student, teacher, temperature=method.temperature)
        case "cross-entropy":
            return soft_cross_entropy(student, teacher, temperature=method.temperature)
        case "mse":
            return functional.mse_loss(student, teacher)


def soft_target_loss(spec: Softened, context: LossContext) -> Loss:
    return lambda batch: soft_targets(
        spec, context.targets, batch.student.logits, batch.teacher_outputs.logits, batch.labels, mixture=batch.mixture
    )
