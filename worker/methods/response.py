"""Losses on the networks' outputs. B batch, C classes, τ temperature.

Each formula is a scalar from student logits (B, C) and teacher logits (B, C), the batch's mean, without its weight in a job's
sum. What is named ``…_loss`` or ``…Loss`` builds it from a spec.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import (
    CorrelationDistillation,
    DecoupledDistillation,
    LogitStandardization,
    OneForAll,
    TeacherFree,
)
from worker.methods.batch import DistillationBatch, Loss, row_mean
from worker.methods.compared import pooled, pooled_width
from worker.methods.context import LossContext

# The published code adds it to a standard deviation, so that logits that are all alike stay finite.
_STD_EPSILON = 1e-7
_COSINE_EPSILON = 1e-8


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, weights: Tensor | None = None) -> Tensor:
    """``τ² · KL(p_t ‖ p_s)``, batch mean, wholly in log space, so that a probability of 0 is harmless.

    It avoids two errors of public code: the sum over classes is averaged over the batch alone (``reduction="mean"`` would
    divide by C as well), and the factor τ² keeps the gradient's size independent of τ.
    """
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=-1)
    return _mean_divergence(student, teacher, weights) * temperature**2


def _mean_divergence(student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over rows of KL(teacher ‖ student) of log-probabilities (B, C); weighted, it would round otherwise."""
    if weights is None:
        return functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return row_mean(functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1), weights)


def bernoulli_divergence(student_logits: Tensor, teacher_logits: Tensor, *, divergence: str, temperature: float) -> Tensor:
    """``τ² · mean over classes of KL(p_t ‖ p_s)``, each p = σ(z/τ) of a class by itself, by row: (…, C) to (…).

    ``cross-entropy`` adds the teacher's entropies, ``mse`` is that of the logits, without τ.
    """
    if divergence == "mse":
        return (student_logits - teacher_logits).square().mean(dim=-1)
    student, teacher = student_logits / temperature, teacher_logits / temperature
    losses = -(teacher.sigmoid() * functional.logsigmoid(student) + (-teacher).sigmoid() * functional.logsigmoid(-student))
    if divergence == "kl":
        losses = losses + teacher.sigmoid() * functional.logsigmoid(teacher)
        losses = losses + (-teacher).sigmoid() * functional.logsigmoid(-teacher)
    return losses.mean(dim=-1) * temperature**2


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """``τ² · H(p_t, p_s)``, batch mean: the KL divergence and the teacher's entropy, with the same gradient."""
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.softmax(teacher_logits / temperature, dim=-1)
    return -row_mean((teacher * student).sum(dim=-1), weights) * temperature**2


def decoupled(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """``τ² · (α · target-class KL + β · non-target KL)`` with labels (B,) (Zhao et al., 2022, arXiv:2203.08679).

    In log space: the published code takes the log of a masked softmax, which underflows where a network is certain.
    """
    is_target = functional.one_hot(labels, student_logits.shape[-1]).bool()
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=-1)
    target = _mean_divergence(_target_or_not(student, is_target), _target_or_not(teacher, is_target), weights)
    student_others, teacher_others = (_among_others(log_p, is_target) for log_p in (student, teacher))
    by_row = (teacher_others.exp() * (teacher_others - student_others)).masked_fill(is_target, 0).sum(dim=-1)
    others = row_mean(by_row, weights)
    return (alpha * target + beta * others) * temperature**2


def _target_or_not(log_p: Tensor, is_target: Tensor) -> Tensor:
    """(B, 2): log-probability of the target class, and of all others together."""
    others = log_p.masked_fill(is_target, -torch.inf).logsumexp(dim=-1)
    return torch.stack([log_p[is_target], others], dim=-1)


def _among_others(log_p: Tensor, is_target: Tensor) -> Tensor:
    """(B, C): log-probabilities of the other classes among themselves; 0, to be left out, at the target."""
    masked = log_p.masked_fill(is_target, -torch.inf)
    return (masked - masked.logsumexp(dim=-1, keepdim=True)).masked_fill(is_target, 0)


def correlation(student_logits: Tensor, teacher_logits: Tensor, *, beta: float, gamma: float, temperature: float) -> Tensor:
    """``τ² · (β · (1 − ρ over each sample's classes) + γ · (1 − ρ over each class's samples))``, ρ Pearson's correlation.

    DIST: Huang et al., 2022, arXiv:2205.10536.
    """
    student = functional.softmax(student_logits / temperature, dim=-1)
    teacher = functional.softmax(teacher_logits / temperature, dim=-1)
    by_sample, by_class = _pearson(student, teacher).mean(), _pearson(student.T, teacher.T).mean()
    return (beta * (1 - by_sample) + gamma * (1 - by_class)) * temperature**2


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of the rows of two (N, M): (N,)."""
    first, second = (rows - rows.mean(dim=-1, keepdim=True) for rows in (first, second))
    lengths: Tensor = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(dim=-1) / (lengths + _COSINE_EPSILON)


def standardized(logits: Tensor) -> Tensor:
    """Each sample's logits (B, C) with mean 0 and (unbiased) standard deviation 1 (Sun et al., 2024, arXiv:2403.01427)."""
    return (logits - logits.mean(dim=-1, keepdim=True)) / (logits.std(dim=-1, keepdim=True) + _STD_EPSILON)


def one_for_all(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """``−Σ ((p_t + y)^ε − y) · log p_s``, y one-hot for unlike architectures (Hao et al., 2023, arXiv:2310.19444)."""
    target = functional.one_hot(labels, student_logits.shape[-1]).to(student_logits.dtype)
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.softmax(teacher_logits / temperature, dim=-1)
    return -row_mean((((teacher + target) ** epsilon - target) * student).sum(dim=-1), weights)


def virtual_teacher(
    student_logits: Tensor,
    labels: Tensor,
    *,
    correct_probability: float,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """``τ² · KL(p_v ‖ p_s)`` to a virtual teacher: it gives the label ``correct_probability`` and spreads the rest evenly.

    Both are softened at τ, as if the virtual teacher's probabilities were logits. Yuan et al., 2020, arXiv:1909.11723.
    """
    num_classes = student_logits.shape[-1]
    rest = (1 - correct_probability) / (num_classes - 1)
    virtual = torch.full_like(student_logits, rest).scatter(1, labels.unsqueeze(1), correct_probability)
    return kl_divergence(student_logits, virtual, temperature=temperature, weights=weights)


def decoupled_loss(spec: DecoupledDistillation, context: LossContext) -> Loss:
    return lambda batch: decoupled(
        batch.student.logits,
        batch.teacher_outputs.logits,
        batch.labels,
        alpha=spec.alpha,
        beta=spec.beta,
        temperature=spec.temperature,
        weights=batch.row_weights,
    )


def correlation_loss(spec: CorrelationDistillation, context: LossContext) -> Loss:
    return lambda batch: correlation(
        batch.student.logits, batch.teacher_outputs.logits, beta=spec.beta, gamma=spec.gamma, temperature=spec.temperature
    )


def standardized_loss(spec: LogitStandardization, context: LossContext) -> Loss:
    def loss(batch: DistillationBatch) -> Tensor:
        ours, theirs = standardized(batch.student.logits), standardized(batch.teacher_outputs.logits)
        match spec.loss:
            case "kl":
                return kl_divergence(ours, theirs, temperature=spec.temperature, weights=batch.row_weights)
            case "dkd":
                weights, temperature = batch.row_weights, spec.temperature
                return decoupled(ours, theirs, batch.labels, alpha=1.0, beta=8.0, temperature=temperature, weights=weights)
            case "dist":
                return correlation(ours, theirs, beta=1.0, gamma=1.0, temperature=spec.temperature)

    return loss


def teacher_free_loss(spec: TeacherFree, context: LossContext) -> Loss:
    return lambda batch: virtual_teacher(
        batch.student.logits,
        batch.labels,
        correct_probability=spec.correct_probability,
        temperature=spec.temperature,
        weights=batch.row_weights,
    )


class OneForAllLoss(nn.Module):
    """OFA's loss on the student's own output and on an exit at each of its stages, which are summed."""

    def __init__(self, spec: OneForAll, context: LossContext) -> None:
        super().__init__()
        self._spec, self._layers = spec, context.pairs.student
        self.exits = nn.ModuleList(
            nn.Linear(pooled_width(context.student_shapes[layer]), context.targets.width) for layer in self._layers
        )

    def forward(self, batch: DistillationBatch) -> Tensor:
        teacher_outputs = batch.teacher_outputs.logits
        logits = [batch.student.logits]
        logits += [out(pooled(batch.student, layer)) for out, layer in zip(self.exits, self._layers, strict=True)]
        epsilon, temperature, weights = self._spec.epsilon, self._spec.temperature, batch.row_weights
        losses = [
            one_for_all(each, teacher_outputs, batch.labels, epsilon=epsilon, temperature=temperature, weights=weights)
            for each in logits
        ]
        return torch.stack(losses).sum()
