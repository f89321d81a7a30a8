"""Losses on the distributions of the next token. N tokens, V the student's vocabulary, U the teacher's, τ temperature.

Each computes the tokens' losses (N,) from student logits (N, V) and teacher logits (N, U); U is V except for ULD. The caller
selects the tokens that are no padding, and takes the mean.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from service.spec.methods.sequence import ForwardKl, JensenShannon, OnPolicy, ReverseKl, UniversalLogit

TokenLoss = Callable[[Tensor, Tensor], Tensor]


def generalized_jsd(student_logits: Tensor, teacher_logits: Tensor, *, beta: float, temperature: float) -> Tensor:
    """``τ² · (β · KL(p_t ‖ m) + (1 − β) · KL(p_s ‖ m))`` with ``m = β · p_t + (1 − β) · p_s``, wholly in log space.

    Agarwal et al., 2024, arXiv:2306.13649. Near β = 0 this is β times the forward KL divergence ``KL(p_t ‖ p_s)``, near β = 1 it
    is 1 − β times the reverse, ``KL(p_s ‖ p_t)``. At 0 and 1 themselves it would vanish; as in the public reference code, it
    is that divergence itself there.
    """
    student = functional.log_softmax(student_logits / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=-1)
    if beta == 0:
        loss = _kl(teacher, student)
    elif beta == 1:
        loss = _kl(student, teacher)
    else:
        mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
        loss = beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)
    return loss * temperature**2


def universal_logit(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``Σ_i |p_s(i) − p_t(i)|`` of the probabilities in falling order, the smaller vocabulary padded with zeros.

    Universal logit distillation: Boizard, El Haddad, Hudelot, Colombo, 2024, arXiv:2402.12030. As there, without τ².
    """
    student, teacher = (
        functional.softmax(logits / temperature, dim=-1).sort(dim=-1, descending=True).values
        for logits in (student_logits, teacher_logits)
    )
    missing = student.shape[-1] - teacher.shape[-1]
    student, teacher = functional.pad(student, (0, max(0, -missing))), functional.pad(teacher, (0, max(0, missing)))
    return (student - teacher).abs().sum(dim=-1)


def forward_kl_loss(spec: ForwardKl) -> TokenLoss:
    """``generalized_jsd`` at β = 0, ``τ² · KL(p_t ‖ p_s)``."""
    return partial(generalized_jsd, beta=0.0, temperature=spec.temperature)


def reverse_kl_loss(spec: ReverseKl) -> TokenLoss:
    """``generalized_jsd`` at β = 1, ``τ² · KL(p_s ‖ p_t)``."""
    return partial(generalized_jsd, beta=1.0, temperature=spec.temperature)


def jsd_loss(spec: JensenShannon | OnPolicy) -> TokenLoss:
    """``generalized_jsd`` at the spec's β."""
    return partial(generalized_jsd, beta=spec.beta, temperature=spec.temperature)


def universal_loss(spec: UniversalLogit) -> TokenLoss:
    """``universal_logit`` at the spec's τ."""
    return partial(universal_logit, temperature=spec.temperature)


TOKEN_LOSSES: dict[str, Callable[[Any], TokenLoss]] = {
    "forward-kl": forward_kl_loss,
    "reverse-kl": reverse_kl_loss,
    "jsd": jsd_loss,
    "on-policy": jsd_loss,
    "uld": universal_loss,
}
"""From a method's name to the function that builds its loss. ``sequence`` has none: it trains by cross-entropy with texts."""


def token_loss(spec: Any) -> TokenLoss:
    """Builds the loss that compares student and teacher at each token. Raises TypeError for a method that compares none."""
    if spec.name not in TOKEN_LOSSES:
        raise TypeError(f"{type(spec).__name__} compares no distributions of tokens")
    return TOKEN_LOSSES[spec.name](spec)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """``KL(first ‖ second)`` of log-probabilities (N, V): (N,)."""
    return functional.kl_div(second, first, reduction="none", log_target=True).sum(dim=-1)
