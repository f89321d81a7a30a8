"""Measuring networks changes nothing in them."""

import math

import pytest
import torch
from torch import nn

from worker.data.samples import Samples
from worker.eval_mode import in_eval_mode
from worker.evaluation.evaluate import agreement, predict, score_outputs
from worker.targets import Targets

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3))


def samples(count: int) -> Samples:
    images = torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1)) + 5
    return Samples(images, torch.zeros(count, dtype=torch.int64), None, CPU)


def test_accuracy_and_loss_are_over_all_samples() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]])
    result = score_outputs(logits, torch.tensor([0, 1, 0, 1]), Targets.of_classes(["a", "b"]))
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))

    assert result.score == 0.75
    assert result.loss == pytest.approx((3 * right + wrong) / 4, rel=1e-12)


def test_predicting_moves_no_statistics_and_draws_no_dropout() -> None:
    subject, data = network(), samples(600)
    before = {name: value.clone() for name, value in subject.state_dict().items()}
    first, second = predict(subject, data), predict(subject, data)

    assert torch.equal(first, second)
    assert first.shape == (600, 3)
    assert not first.requires_grad
    assert subject.training
    assert all(torch.equal(value, before[name]) for name, value in subject.state_dict().items())


def test_the_teacher_is_asked_exactly_what_each_step_would_ask() -> None:
    subject, data = network(), samples(600)
    logits = predict(subject, data)
    indices = torch.tensor([599, 0, 300])
    with in_eval_mode(subject):
        direct = subject(data.batch(indices).inputs)

    assert torch.allclose(logits[indices], direct, rtol=1e-6, atol=1e-6)


def test_agreement_is_the_share_of_equal_choices() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]])
    second = torch.tensor([[9.0, 0.0], [1.0, 0.0], [2.0, 1.0]])

    assert agreement(first, second, Targets.of_classes(["a", "b"])) == pytest.approx(2 / 3)
