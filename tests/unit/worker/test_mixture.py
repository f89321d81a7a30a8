"""The loss of a mixture of two samples: each one's labels by its share, for one target and for several."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from service.spec.methods import DistillationNetwork, Labels, MultiTask, SoftTargets, SumOfTerms, terms_of
from worker.distributed.collectives import rebuild_batch, split_tensors
from worker.methods import DistillationBatch, LayerPairs, LossContext, Outputs, WeightedSum, build_loss
from worker.methods.layer_pairs import TEACHER_HEAD
from worker.targets import MixedLabels, Target, Targets, label_loss, target_losses

CLASSES = Targets.of_classes(["a", "b", "c"])
MANY = Targets((Target("colour", ("red", "blue")), Target("size", None)))
SHARES = torch.tensor([1.0, 0.25, 0.5])


def outputs(targets: Targets) -> Tensor:
    return torch.randn(3, targets.width, generator=torch.Generator().manual_seed(0))


def test_of_one_target_it_is_the_shared_cross_entropy() -> None:
    logits, own, other = outputs(CLASSES), torch.tensor([0, 1, 2]), torch.tensor([2, 2, 1])
    each = [functional.cross_entropy(logits, labels, reduction="none") for labels in (own, other)]
    expected = (SHARES * each[0] + (1 - SHARES) * each[1]).mean()
    torch.testing.assert_close(label_loss(CLASSES, logits, own, MixedLabels(other, SHARES)), expected)


def test_with_a_partner_of_the_same_label_it_is_the_plain_loss() -> None:
    logits, labels = outputs(CLASSES), torch.tensor([0, 1, 2])
    torch.testing.assert_close(
        label_loss(CLASSES, logits, labels, MixedLabels(labels, SHARES)), label_loss(CLASSES, logits, labels)
    )


def test_of_several_targets_each_is_shared_and_what_has_no_label_does_not_count() -> None:
    values = outputs(MANY)
    own = torch.tensor([[0.0, 1.0], [1.0, math.nan], [math.nan, math.nan]])
    other = torch.tensor([[1.0, 5.0], [math.nan, 3.0], [0.0, math.nan]])
    colour = functional.log_softmax(values[:, :2], dim=-1)
    # The first sample is all its own; the others have a colour of one of their two, and a size of one at most.
    colours = -(colour[0, 0] + 0.25 * colour[1, 1] + 0.5 * colour[2, 0]) / 1.75
    sizes = ((values[0, 2] - 1) ** 2 + 0.75 * (values[1, 2] - 3) ** 2) / 1.75
    torch.testing.assert_close(target_losses(MANY, values, own, MixedLabels(other, SHARES)), torch.stack([colours, sizes]))


def test_a_target_without_any_label_costs_nothing() -> None:
    nothing = torch.full((3, 2), math.nan)
    assert target_losses(MANY, outputs(MANY), nothing, MixedLabels(nothing, SHARES)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "method",
    [
        SoftTargets(label_weight=1.0),
        DistillationNetwork(name="distillation-network", teacher_weight=0.0),
        MultiTask(name="multi-task", teacher_weight=0.0),
        SumOfTerms(terms=[Labels(name="labels")]),
        SumOfTerms.model_validate({"terms": [{"name": "soft-targets", "weight": 0.0}, {"name": "labels"}]}),
        SumOfTerms.model_validate({"terms": [{"name": "dist", "weight": 0.0, "label_weight": 1.0}]}),
    ],
    ids=lambda method: str(getattr(method, "name", "terms")),
)
def test_every_method_that_weighs_labels_weighs_them_by_the_shares(method: Any) -> None:
    logits, own, mixture = outputs(CLASSES), torch.tensor([0, 1, 2]), MixedLabels(torch.tensor([2, 2, 1]), SHARES)
    context = LossContext(CLASSES, own, LayerPairs((), ()), {}, {})
    objective = WeightedSum([(term, build_loss(term, context)) for term in terms_of(method)], CLASSES)
    seen = Outputs(logits, {TEACHER_HEAD: logits})
    loss = objective(DistillationBatch(seen, Outputs(logits), own, torch.arange(3), mixture=mixture))
    torch.testing.assert_close(loss, label_loss(CLASSES, logits, own, mixture))


def test_each_sample_of_a_mixture_counts_by_its_share_and_its_own_weight() -> None:
    logits, own, other = outputs(CLASSES), torch.tensor([0, 1, 2]), torch.tensor([2, 2, 1])
    weights, theirs = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([5.0, 2.0, 0.0])
    mixture = MixedLabels(other, SHARES, theirs)
    each = [functional.cross_entropy(logits, labels, reduction="none") for labels in (own, other)]
    expected = (weights * SHARES * each[0] + theirs * (1 - SHARES) * each[1]).mean()
    batch = DistillationBatch(Outputs(logits), None, own, torch.arange(3), mixture=mixture, weights=weights)

    torch.testing.assert_close(label_loss(CLASSES, logits, own, mixture, weights=weights), expected)
    assert batch.row_weights is not None
    assert batch.row_weights.tolist() == pytest.approx([1.0, 0.75 * 2.0, 1.5])
    assert rebuild_batch(batch, *split_tensors(batch)) == batch
