"""Offsets that make a classifier's mean probabilities what they are to be."""

import pytest
import torch

from worker.evaluation import class_balance
from worker.evaluation.class_balance import balancing_offsets


def logits(num_classes: int, *, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(300, num_classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("rare", [0.2, 1e-2, 1e-4])
def test_the_mean_probabilities_become_the_wanted_ones(scale: float, rare: float) -> None:
    wanted = torch.tensor([rare, *[(1 - rare) / 3] * 3], dtype=torch.float64)
    outputs = logits(4, scale=scale)
    offsets = balancing_offsets(outputs, wanted)

    torch.testing.assert_close((outputs + offsets).softmax(dim=1).mean(dim=0), wanted, atol=1e-7, rtol=1e-4)
    assert offsets.mean().item() == pytest.approx(0, abs=1e-9)


def test_outputs_that_are_right_already_stay() -> None:
    outputs = logits(5)
    assert balancing_offsets(outputs, outputs.softmax(dim=1).mean(dim=0)).abs().max() < 1e-9


def test_very_many_classes_are_balanced_without_a_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_balance, "_MOST_CLASSES", 3)
    wanted = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    outputs = logits(4)
    mean = (outputs + balancing_offsets(outputs, wanted)).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(mean, wanted, atol=1e-6, rtol=0)


def test_a_class_that_is_never_wanted_gets_a_finite_offset() -> None:
    offsets = balancing_offsets(logits(3), torch.tensor([0.5, 0.5, 0.0]))
    assert offsets.isfinite().all()
    assert offsets[2] < -10
