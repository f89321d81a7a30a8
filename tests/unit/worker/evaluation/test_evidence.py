"""What few rows show and what they do not: intervals, and when a score is at chance."""

import math

import pytest
import torch
from torch import Tensor

from worker.evaluation.evidence import GuessComparison, compare_with_guess, paired_interval, wilson_interval
from worker.evaluation.token_evidence import TokenComparison, compare_tokens_with_guess, token_frequencies
from worker.targets import Target, Targets


def classifier(sizes: list[int], right: list[int]) -> GuessComparison:
    """``right`` of each class's rows are told; the others are taken for the next class."""
    labels = torch.cat([torch.full((size,), index) for index, size in enumerate(sizes)])
    predicted = torch.cat(
        [
            torch.tensor([index] * hits + [(index + 1) % len(sizes)] * (size - hits))
            for index, (size, hits) in enumerate(zip(sizes, right, strict=True))
        ]
    )
    outputs = torch.nn.functional.one_hot(predicted, len(sizes)).float()
    (found,) = compare_with_guess(outputs, labels, Targets.of_classes([f"class {index}" for index in range(len(sizes))]))
    return found


@pytest.mark.parametrize(
    ("sizes", "right"),
    [
        ([60, 60, 60], [0, 0, 0]),
        ([60, 60, 60], [60, 0, 0]),
        ([50, 50], [50, 0]),
        ([18] * 10, [2] * 10),
        ([2, 2], [0, 0]),
        ([900, 100], [0, 100]),
        ([900, 100], [900, 0]),
    ],
    ids=[
        "another order",
        "one class told",
        "always one of two",
        "tenth of ten",
        "four rows",
        "always the smaller",
        "always the larger",
    ],
)
def test_a_guess_is_near_chance(sizes: list[int], right: list[int]) -> None:
    assert classifier(sizes, right).is_near_chance


@pytest.mark.parametrize(
    ("sizes", "right", "expected"),
    [
        ([60, 60, 60], [0, 0, 0], True),
        ([2, 2], [0, 0], True),
        ([900, 100], [0, 100], True),
        ([60, 60, 60], [60, 0, 0], False),
        ([18] * 10, [2] * 10, False),
        ([9500, 500], [8900, 450], False),
    ],
    ids=["another order", "four rows", "always the smaller", "one class told", "tenth of ten", "unequal"],
)
def test_at_chance_is_what_even_the_upper_end_of_the_interval_is_no_better_than(
    sizes: list[int], right: list[int], expected: bool
) -> None:
    assert classifier(sizes, right).is_at_chance == expected


@pytest.mark.parametrize(
    ("sizes", "right"),
    [
        ([2, 2], [1, 1]),
        ([2, 2], [2, 0]),
        ([6, 4], [2, 2]),
        ([2] * 10, [1, 1, 1] + [0] * 7),
        ([60, 60, 60], [30, 30, 30]),
        ([10] * 1000, [1] * 1000),
        ([9500, 500], [8900, 450]),
    ],
    ids=[
        "four rows",
        "always one of four rows",
        "ten rows",
        "three of twenty rows",
        "half of three",
        "tenth of a thousand",
        "unequal",
    ],
)
def test_few_rows_and_weak_but_true_knowledge_are_not(sizes: list[int], right: list[int]) -> None:
    assert not classifier(sizes, right).is_near_chance


def test_rows_of_one_class_or_without_labels_tell_nothing() -> None:
    targets = Targets.of_classes(["a", "b"])
    assert compare_with_guess(torch.randn(9, 2), torch.zeros(9, dtype=torch.int64), targets) == []
    assert compare_with_guess(torch.randn(9, 2), torch.full((9,), -1), targets) == []


def number(outputs: Tensor, labels: Tensor) -> GuessComparison:
    (found,) = compare_with_guess(outputs[:, None], labels[:, None], Targets((Target("size", None),)))
    return found


def test_a_number_is_compared_with_its_mean() -> None:
    labels = torch.linspace(-1, 1, 50)
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert number(labels + 0.3 * noise, labels).is_better
    assert number(1000 * labels, labels).is_at_chance, "other units"
    assert number(noise, labels).is_at_chance, "another number"
    assert number(torch.zeros(50), labels).is_at_chance
    assert number(1000 * labels[:8], labels[:8]).is_at_chance, "far off, even on eight rows"
    three = labels[[0, 25, 49]]
    assert not number(-three, three).is_at_chance, "three rows tell little"


def test_a_language_model_is_compared_with_the_frequencies_of_tokens() -> None:
    tokens = torch.tensor([0, 1] * 200)
    frequencies = token_frequencies(tokens, vocabulary=8)
    assert float(frequencies.sum()) == pytest.approx(1.0)

    def model(loss: float) -> TokenComparison:
        return compare_tokens_with_guess(torch.stack([torch.full((400,), loss), tokens, tokens], dim=1).double(), frequencies)

    assert model(math.log(8)).is_at_chance, "untrained"
    assert model(math.log(1.9)).is_better


def test_wilsons_interval_is_that_of_the_literature() -> None:
    low, high = wilson_interval(0.3, 10)  # Newcombe, 1998, gives 0.108 and 0.603 for 3 of 10
    assert (round(low, 3), round(high, 3)) == (0.108, 0.603)
    assert wilson_interval(1.0, 4)[1] == 1.0
    assert wilson_interval(0.0, 4)[0] == 0.0


def test_two_networks_are_compared_on_the_same_rows() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    targets = Targets.of_classes(["a", "b"])

    def network(wrong: slice) -> Tensor:
        outputs = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
        outputs[wrong] = torch.tensor([0.0, 1.0])
        return outputs

    better, worse = network(slice(0, 2)), network(slice(0, 22))
    found = paired_interval(better, worse, labels, targets)
    assert found is not None
    assert 0.1 < found[0] < 0.2 < found[1] < 0.3
    apart = paired_interval(network(slice(0, 20)), network(slice(20, 42)), labels, targets)
    assert apart is not None
    assert apart[0] < 0 < apart[1], "as many are right, on other rows"


def test_two_regressions_are_compared_by_the_variance_that_they_explain() -> None:
    labels = torch.linspace(-1, 1, 60)[:, None]
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    targets = Targets((Target("size", None),))
    found = paired_interval(labels + 0.1 * noise, labels + 0.5 * noise, labels, targets)
    assert found is not None
    assert 0 < found[0] < 0.7 < found[1] < 1.5
