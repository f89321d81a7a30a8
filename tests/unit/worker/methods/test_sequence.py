"""Losses on the distributions of the next token. The values of public reference code are in ``test_methods``."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.methods.sequence import ForwardKl, JensenShannon, OnPolicy, ReverseKl, UniversalLogit
from worker.methods.response import kl_divergence
from worker.methods.sequence import generalized_jsd, token_loss, universal_logit


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher


def test_the_divergence_is_each_tokens_and_keeps_the_gradients_size_at_any_temperature(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    losses = generalized_jsd(student, teacher, beta=0.0, temperature=2.0)
    assert losses.shape == (6,)
    torch.testing.assert_close(losses.mean(), kl_divergence(student, teacher, temperature=2.0))
    reverse = generalized_jsd(student, teacher, beta=1.0, temperature=2.0)
    torch.testing.assert_close(reverse.mean(), kl_divergence(teacher, student, temperature=2.0))


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_near_its_ends_the_divergence_is_that_share_of_the_forward_or_reverse_one(
    logits: tuple[Tensor, Tensor], beta: float
) -> None:
    near, share = abs(beta - 1e-6), 1e-6
    expected = generalized_jsd(*logits, beta=beta, temperature=1.0)
    torch.testing.assert_close(generalized_jsd(*logits, beta=near, temperature=1.0) / share, expected, rtol=1e-3, atol=0)


def test_halfway_it_is_symmetric_and_at_most_the_logarithm_of_two(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    losses = generalized_jsd(student, teacher, beta=0.5, temperature=1.0)
    torch.testing.assert_close(losses, generalized_jsd(teacher, student, beta=0.5, temperature=1.0))
    assert bool((losses <= math.log(2)).all())


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_networks_certain_beyond_float32_give_finite_losses_and_gradients(beta: float) -> None:
    teacher = torch.tensor([[500.0, 0.0, -500.0]])
    student = torch.tensor([[-500.0, 0.0, 500.0]], requires_grad=True)
    loss = generalized_jsd(student, teacher, beta=beta, temperature=1.0).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


def test_by_rank_it_does_not_matter_which_token_is_which_nor_that_a_vocabulary_is_larger(logits: tuple[Tensor, Tensor]) -> None:
    student, _ = logits
    shuffled = student[:, torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(universal_logit(student, shuffled, temperature=1.0), torch.zeros(6, dtype=torch.float64))
    larger = torch.cat([shuffled, torch.full((6, 4), -1e9, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(universal_logit(student, larger, temperature=1.0), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(universal_logit(larger, student, temperature=1.0), torch.zeros(6, dtype=torch.float64))


def test_probabilities_by_rank_are_compared_by_their_absolute_differences() -> None:
    student, teacher = torch.tensor([[0.2, 0.7, 0.1]]).log(), torch.tensor([[0.4, 0.6]]).log()
    torch.testing.assert_close(universal_logit(student, teacher, temperature=1.0), torch.tensor([0.1 + 0.2 + 0.1]))


@pytest.mark.parametrize(
    ("method", "beta", "temperature"),
    [
        (ForwardKl(name="forward-kl", temperature=2.0), 0.0, 2.0),
        (ReverseKl(name="reverse-kl"), 1.0, 1.0),
        (JensenShannon(name="jsd", beta=0.2), 0.2, 1.0),
        (OnPolicy(name="on-policy", temperature=3.0), 0.5, 3.0),
    ],
)
def test_each_method_compares_by_its_divergence(
    logits: tuple[Tensor, Tensor], method: Any, beta: float, temperature: float
) -> None:
    expected = generalized_jsd(*logits, beta=beta, temperature=temperature)
    torch.testing.assert_close(token_loss(method)(*logits), expected)


def test_between_tokenizers_probabilities_are_compared_by_rank(logits: tuple[Tensor, Tensor]) -> None:
    method = UniversalLogit(name="uld", temperature=2.0)
    torch.testing.assert_close(token_loss(method)(*logits), universal_logit(*logits, temperature=2.0))
    assert (method.weight, method.label_weight) == (1.5, 1.0)
