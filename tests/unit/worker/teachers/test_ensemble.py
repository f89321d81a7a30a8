"""Several networks' outputs as one, by hand."""

import math

import pytest
import torch

from worker.targets import Target, Targets
from worker.teachers.ensemble import combine_outputs

CLASSES = Targets.of_classes(["a", "b"])
BOTH = Targets((Target("sex", ("a", "b")), Target("age", None)))


def logits(*probabilities: float) -> list[float]:
    return [math.log(p) + 3.0 for p in probabilities]


def test_probabilities_are_averaged_and_not_logits() -> None:
    outputs = [torch.tensor([logits(0.9, 0.1)]), torch.tensor([logits(0.2, 0.8)])]
    assert combine_outputs(outputs, CLASSES).exp().tolist() == [pytest.approx([0.55, 0.45])]


def test_weights_are_shares() -> None:
    outputs = [torch.tensor([logits(0.9, 0.1)]), torch.tensor([logits(0.2, 0.8)])]
    assert combine_outputs(outputs, CLASSES, weights=[3.0, 1.0]).exp().tolist() == [pytest.approx([0.725, 0.275])]
    assert combine_outputs(outputs, CLASSES, weights=[0.0, 2.0]).exp().tolist() == [pytest.approx([0.2, 0.8])]


def test_what_one_does_not_say_is_left_to_the_others() -> None:
    nothing = math.nan
    first, second = [*logits(0.5, 0.5), nothing], [nothing, nothing, 4.0]
    together = combine_outputs([torch.tensor([first]), torch.tensor([second])], BOTH)
    assert together[0, :2].exp().tolist() == pytest.approx([0.5, 0.5])
    assert together[0, 2].item() == 4.0


def test_what_nobody_says_stays_unknown() -> None:
    outputs = torch.tensor([[math.nan, math.nan, 1.0]])
    together = combine_outputs([outputs, outputs], BOTH)
    assert together[0, :2].isnan().all()
    assert together[0, 2].item() == 1.0


def test_a_certain_network_stays_finite() -> None:
    together = combine_outputs([torch.tensor([[800.0, -800.0]]), torch.tensor([[0.0, 0.0]])], CLASSES)
    assert together.exp().tolist() == [pytest.approx([0.75, 0.25])]
