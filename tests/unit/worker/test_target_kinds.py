"""Classes that do not exclude each other, and labels that are probabilities: losses, scores, and what a guess would have."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_exact_match, multilabel_f1_score

from service.spec.methods import SoftTargets
from service.spec.training import TrainingSpec
from worker.data.adopted import relabel_samples
from worker.evaluation.evaluate import agreement, score_by_teacher, score_outputs
from worker.evaluation.evidence import compare_with_guess, paired_interval, score_interval
from worker.evaluation.metrics import target_agreement, target_metrics
from worker.methods.batch import DistillationBatch, Outputs
from worker.methods.multi_task import teacher_losses
from worker.methods.soft_targets import soft_targets
from worker.targets import MixedLabels, Target, Targets, label_loss
from worker.teachers.ensemble import combine_outputs
from worker.training.label_loss import targets_to_learn

NAN = math.nan
TRAITS = Target("traits", ("round", "even", "big"), label_kind="labels")
VOTES = Target("votes", ("a", "b", "c"), label_kind="probabilities")
SHAPE, SIZE = Target("shape", ("x", "y")), Target("size", None)
ALL = Targets((SHAPE, TRAITS, VOTES, SIZE))
YES = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1], [NAN, NAN, NAN]])
SHARES = torch.tensor([[0.2, 0.8, 0.0], [NAN, NAN, NAN], [0.0, 0.0, 1.0], [0.4, 0.3, 0.3]])
LABELS = torch.cat([torch.tensor([[0.0], [1.0], [NAN], [1.0]]), YES, SHARES, torch.tensor([[1.0], [NAN], [2.0], [3.0]])], dim=1)


def logits(width: int, rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_target_finds_its_own_labels_among_wide_ones() -> None:
    parts = [ALL.labels_of(LABELS, index) for index in range(4)]
    assert parts[0].tolist() == [0, 1, -1, 1]
    torch.testing.assert_close(parts[1], YES, equal_nan=True)
    torch.testing.assert_close(parts[2], SHARES, equal_nan=True)
    torch.testing.assert_close(parts[3], LABELS[:, -1], equal_nan=True)
    assert [known.tolist() for known in ALL.known(LABELS)][1:3] == [[True, True, True, False], [True, False, True, True]]
    assert ALL.classes == [
        "shape: x",
        "shape: y",
        *(f"traits: {n}" for n in TRAITS.classes or ()),
        "votes: a",
        "votes: b",
        "votes: c",
        "size",
    ]
    assert Targets((TRAITS,)).classes == ["round", "even", "big"]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classes_by_themselves_lose_the_binary_cross_entropy_of_torch(smoothing: float) -> None:
    target = Target("traits", TRAITS.classes, label_kind="labels", class_weights=(1.0, 3.0, 0.5), label_smoothing=smoothing)
    outputs, weight = logits(3), torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    wanted = YES[:3].double() * (1 - smoothing) + smoothing / 2
    theirs = functional.binary_cross_entropy_with_logits(outputs[:3], wanted, pos_weight=weight)
    assert label_loss(Targets((target,)), outputs, YES).item() == pytest.approx(theirs.item())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5)])
def test_probabilities_lose_the_cross_entropy_of_torch(smoothing: float, weights: tuple[float, ...] | None) -> None:
    target = Target("votes", VOTES.classes, label_kind="probabilities", class_weights=weights, label_smoothing=smoothing)
    outputs, known = logits(3), [0, 2, 3]
    theirs = functional.cross_entropy(
        outputs[known],
        SHARES[known].double(),
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        label_smoothing=smoothing,
    )
    assert label_loss(Targets((target,)), outputs, SHARES).item() == pytest.approx(theirs.item())


def test_a_mixture_of_lists_is_each_lists_loss_by_its_share() -> None:
    targets, outputs, shares = Targets((TRAITS,)), logits(3)[:2], torch.tensor([0.7, 0.4], dtype=torch.float64)
    own, other = YES[:2], YES[[2, 0]]
    each = [functional.binary_cross_entropy_with_logits(outputs, y.double(), reduction="none").mean(dim=1) for y in (own, other)]
    mixed = label_loss(targets, outputs, own, MixedLabels(other, shares))
    assert mixed.item() == pytest.approx((shares * each[0] + (1 - shares) * each[1]).mean().item())


def test_balanced_weights_of_classes_by_themselves_are_zeros_by_ones() -> None:
    (target,) = targets_to_learn(Targets((TRAITS,)), TrainingSpec(class_weights="balanced"), YES, place="/training")
    assert target.class_weights == pytest.approx((2 / 1, 2 / 1, 1 / 2))
    (soft,) = targets_to_learn(Targets((VOTES,)), TrainingSpec(class_weights="balanced"), SHARES, place="/training")
    assert soft.class_weights == pytest.approx((3 / (3 * 0.6), 3 / (3 * 1.1), 3 / (3 * 1.3)))


@pytest.mark.parametrize("divergence", ["kl", "cross-entropy", "mse"])
def test_a_teachers_yes_and_no_of_each_class_is_compared_by_itself(divergence: str) -> None:
    targets, student, teacher, t = Targets((TRAITS,)), logits(3), logits(3, seed=1), 2.0
    method = SoftTargets.model_validate({"name": "soft-targets", "divergence": divergence, "temperature": t, "label_weight": 0.0})
    batch = DistillationBatch(Outputs(student), Outputs(teacher), YES, torch.arange(4))
    p, q = (torch.stack([z / t, torch.zeros_like(z)]).softmax(dim=0) for z in (teacher, student))  # yes against no
    expected = {
        "kl": (p * (p / q).log()).sum(dim=0).mean() * t**2,
        "cross-entropy": -(p * q.log()).sum(dim=0).mean() * t**2,
        "mse": (teacher - student).square().mean(),
    }[divergence]
    assert soft_targets(method, targets, batch).item() == pytest.approx(expected.item())
    losses = teacher_losses(targets, student, teacher, divergence=method.divergence, temperature=t)
    assert losses.tolist() == pytest.approx([expected.item()])


def test_metrics_of_classes_by_themselves_are_those_of_the_libraries() -> None:
    outputs, wanted = logits(3, rows=60), (logits(3, rows=60, seed=2) + logits(3, rows=60) > 0.5).double()
    wanted[5] = NAN
    found = target_metrics(outputs, wanted, Targets((TRAITS,)))["traits"]
    known = [row for row in range(60) if row != 5]
    scores, labels = outputs[known].sigmoid(), wanted[known].long()

    assert found["mean_average_precision"] == pytest.approx(multilabel_average_precision(scores, labels, 3).item(), abs=1e-6)
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(labels.numpy(), scores.numpy()))
    assert found["micro_f1"] == pytest.approx(multilabel_f1_score(scores, labels, 3, average="micro").item())
    assert found["macro_f1"] == pytest.approx(multilabel_f1_score(scores, labels, 3, average="macro").item())
    assert found["exact_match"] == pytest.approx(multilabel_exact_match(scores, labels, 3).item())
    result = score_outputs(outputs, wanted, Targets((TRAITS,)))
    assert result.score == pytest.approx(f1_score(labels.numpy(), (scores > 0.5).numpy(), average="micro"))
    assert result.loss == pytest.approx(found["loss"])


def test_a_class_that_never_occurs_says_nothing_of_the_others() -> None:
    wanted, outputs = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[3.0, -1, -1], [1, -2, -1], [-1, 2, -1]])
    found = target_metrics(outputs, wanted, Targets((TRAITS,)))["traits"]
    assert (found["mean_average_precision"], found["macro_f1"], found["exact_match"]) == (1.0, 1.0, 1.0)
    nothing = target_metrics(-outputs.abs(), torch.zeros(3, 3), Targets((TRAITS,)))["traits"]
    assert all(math.isfinite(value) for value in nothing.values())


def test_probabilities_are_scored_by_their_most_probable_class_and_their_own_cross_entropy() -> None:
    outputs = torch.tensor([[0.0, 3, 0], [9, 0, 0], [0, 9, 0], [2, 0, 0]], dtype=torch.float64)
    result, found = score_outputs(outputs, SHARES, Targets((VOTES,))), target_metrics(outputs, SHARES, Targets((VOTES,)))["votes"]
    assert result.score == found["accuracy"] == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(found["loss"])
    known = [0, 2, 3]
    assert found["loss"] == pytest.approx(functional.cross_entropy(outputs[known], SHARES[known].double()).item())


def test_networks_agree_where_they_choose_the_same_classes() -> None:
    targets = Targets((TRAITS,))
    first = torch.tensor([[1.0, -1, 2], [-1, -1, -1], [1, 1, 1], [1, -1, -1]])
    second = first * torch.tensor([[1.0], [1], [1], [-1]])
    assert agreement(first, second, targets) == 0.75
    assert target_agreement(first, second, targets)["traits"]["agreement"] == 0.75
    assert target_agreement(first, first, targets)["traits"]["kl_divergence"] == pytest.approx(0.0, abs=1e-12)
    by_teacher = score_by_teacher(second, first, targets)
    chosen, wanted = (second > 0).long().numpy(), (first > 0).long().numpy()
    assert by_teacher.score == pytest.approx(f1_score(wanted, chosen, average="micro"))


def test_the_interval_of_an_f1_is_that_of_its_resampled_rows() -> None:
    """The ends are where 95% of the F1s of bootstrap samples lie, but for chance."""
    rows, targets = 400, Targets((TRAITS,))
    wanted = (logits(3, rows=rows, seed=3) > 0.3).double()
    outputs = logits(3, rows=rows, seed=4) + 2 * (wanted - 0.5)
    interval = score_interval(outputs, wanted, targets)
    assert interval is not None
    random, chosen, labels = np.random.default_rng(0), (outputs > 0).numpy(), wanted.numpy() > 0
    drawn = [random.integers(0, rows, rows) for _ in range(1000)]
    scores = [2 * (chosen[at] & labels[at]).sum() / (chosen[at].sum() + labels[at].sum()) for at in drawn]
    low, high = np.quantile(scores, [0.025, 0.975])
    assert interval == pytest.approx((low, high), abs=0.006)


def test_the_best_guess_names_the_same_classes_for_every_row() -> None:
    wanted = torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    (compared,) = compare_with_guess(logits(3), wanted, Targets((TRAITS,)))
    guesses = [[(set_ >> place) & 1 for place in range(3)] for set_ in range(1, 8)]
    best = max(f1_score(wanted.numpy(), np.tile(guess, (4, 1)), average="micro", zero_division=0.0) for guess in guesses)
    assert compared.constant == pytest.approx(best)
    assert "where always the same classes have" in str(compared)


def test_a_better_network_is_told_from_a_worse_one() -> None:
    targets, wanted = Targets((TRAITS,)), (logits(3, rows=200, seed=5) > 0).double()
    good, bad = logits(3, rows=200, seed=6) + 4 * (wanted - 0.5), logits(3, rows=200, seed=7)
    low, high = paired_interval(good, bad, wanted, targets) or (0.0, 0.0)
    assert 0 < low < high
    assert paired_interval(good, good, wanted, targets) == (0.0, 0.0)


def test_several_teachers_are_combined_by_their_probabilities() -> None:
    first, second = logits(3), logits(3, seed=1)
    combined = combine_outputs([first, second], Targets((TRAITS,)), weights=[3.0, 1.0])
    torch.testing.assert_close(
        combined.double().sigmoid(), 0.75 * first.sigmoid() + 0.25 * second.sigmoid(), rtol=1e-5, atol=1e-6
    )


def test_lists_are_numbered_anew_with_more_classes() -> None:
    before, after = (
        Targets((Target("t", ("0", "1"), label_kind="labels"), SIZE)),
        Targets((Target("t", ("1", "2", "0"), label_kind="labels"), SIZE)),
    )
    labels = torch.tensor([[1.0, 0.0, 5.0], [NAN, NAN, 6.0]])
    found = relabel_samples(labels, before, after)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 1.0, 5.0], [NAN, NAN, NAN, 6.0]]), equal_nan=True)


def test_rows_without_a_label_become_lists_where_a_teacher_says_so() -> None:
    found = relabel_samples(torch.tensor([-1, -1]), Targets((Target("t", ()),)), Targets((TRAITS,)))
    assert found.shape == (2, 3)
    assert bool(found.isnan().all())
