"""What a training's spec says of its label loss becomes weights of the targets' classes."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from service.spec.training import TrainingSpec
from worker.errors import JobFault
from worker.targets import Target, Targets
from worker.training.label_loss import targets_to_learn

SHAPE, COLOUR, SIZE = Target("shape", ("a", "b", "c")), Target("colour", ("red", "blue")), Target("size", None)


def learned(targets: Targets, labels: torch.Tensor, **spec: object) -> Targets:
    return targets_to_learn(targets, TrainingSpec.model_validate(spec), labels, place="/training")


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2] * 11 + [-1] * 5)
    (target,) = learned(Targets((SHAPE,)), labels, class_weights="balanced", label_smoothing=0.1)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels[labels >= 0].numpy())

    assert target.class_weights == pytest.approx(theirs.tolist())
    assert target.label_smoothing == 0.1


def test_weighted_rows_are_balanced_by_their_weights() -> None:
    labels, weights = torch.tensor([0, 0, 1, -1]), torch.tensor([0.5, 1.5, 6.0, 9.0])
    (target,) = targets_to_learn(
        Targets((COLOUR,)), TrainingSpec(class_weights="balanced"), labels, weights=weights, place="/training"
    )
    assert target.class_weights == pytest.approx((8 / (2 * 2), 8 / (2 * 6)))


def test_a_class_without_a_row_changes_no_balance() -> None:
    (target,) = learned(Targets((SHAPE,)), torch.tensor([0, 0, 0, 2]), class_weights="balanced")
    assert target.class_weights == pytest.approx((4 / 6, 1.0, 4 / 2))


def test_words_are_balanced_by_their_labels() -> None:
    (target,) = learned(Targets((COLOUR,)), torch.tensor([[0, 0, -2], [0, 1, -1]]), class_weights="balanced")
    assert target.class_weights == pytest.approx((4 / 6, 4 / 2))


def test_classes_are_weighted_by_their_names_and_numbers_never() -> None:
    labels = torch.tensor([[0.0, 1.0, 2.0], [1.0, math.nan, 0.5]])
    first, second, number = learned(Targets((SHAPE, COLOUR, SIZE)), labels, class_weights={"shape: b": 3, "colour: blue": 0.5})
    assert (first.class_weights, second.class_weights, number.class_weights) == ((1.0, 3.0, 1.0), (1.0, 0.5), None)


def test_a_training_that_says_nothing_learns_the_very_targets() -> None:
    targets = Targets((SHAPE,))
    assert learned(targets, torch.tensor([0])) is targets


def test_the_weight_of_an_unknown_class_is_refused_at_its_place() -> None:
    with pytest.raises(JobFault, match="no class 'd' to be weighted") as refused:
        learned(Targets((SHAPE,)), torch.tensor([0]), class_weights={"d": 2})
    assert refused.value.details == {"pointer": "/training/class_weights"}
