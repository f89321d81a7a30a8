"""Entities of IOB2 tags, and their scores beside those of nervaluate."""

import random

import pytest
from nervaluate import Evaluator

from worker.evaluation.entities import (
    Entity,
    count_entities,
    entities_of,
    f1_difference_interval,
    f1_interval,
)

CLASSES = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
Tags = list[list[str]]


def drawn(count: int, *, seed: int) -> tuple[Tags, Tags]:
    """True tags of samples, in IOB2, and predictions that break it."""
    draws = random.Random(seed)
    true: Tags = []
    for _ in range(count):
        tags: list[str] = []
        while len(tags) < 8:
            kind = draws.choice(["LOC", "PER", ""])
            tags += [f"B-{kind}", *[f"I-{kind}"] * draws.randrange(3)] if kind else ["O"]
        true.append(tags)
    predicted = [[draws.choice(CLASSES) if draws.random() < 0.3 else tag for tag in tags] for tags in true]
    return predicted, true


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ([], []),
        (["O", "O"], []),
        (["B-PER", "I-PER", "O", "B-LOC"], [Entity("PER", 0, 2), Entity("LOC", 3, 4)]),
        (["B-PER", "B-PER", "I-PER"], [Entity("PER", 0, 1), Entity("PER", 1, 3)]),
        (["O", "I-PER", "I-PER"], [Entity("PER", 1, 3)]),
        (["B-PER", "I-LOC", "I-PER"], [Entity("PER", 0, 1), Entity("LOC", 1, 2), Entity("PER", 2, 3)]),
        (["B-X-Y", "I-X-Y", "I-X"], [Entity("X-Y", 0, 2), Entity("X", 2, 3)]),
    ],
)
def test_entities_are_told_from_their_tags(tags: list[str], entities: list[Entity]) -> None:
    assert entities_of(tags) == entities


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_reference(seed: int) -> None:
    predicted, true = drawn(40, seed=seed)
    reference = Evaluator(true, predicted, tags=["LOC", "PER"], loader="list").evaluate()
    counts = count_entities(predicted, true, CLASSES)
    expected = {None: reference["overall"], "LOC": reference["entities"]["LOC"], "PER": reference["entities"]["PER"]}
    for type_, by_scheme in expected.items():
        strict = by_scheme["strict"]
        assert counts.score(type_) == pytest.approx((strict.precision, strict.recall, strict.f1))


def test_a_type_that_nothing_is_of_scores_0() -> None:
    counts = count_entities([["O", "B-PER"]], [["O", "B-PER"]], CLASSES)
    assert counts.score("LOC") == (0.0, 0.0, 0.0)
    assert counts.score("PER") == (1.0, 1.0, 1.0)


def test_words_without_a_tag_are_of_no_entity() -> None:
    counts = count_entities([["B-PER", "I-PER", "B-LOC"]], [["B-PER", None, None]], CLASSES)
    assert counts.score() == (1.0, 1.0, 1.0)
    assert counts.true.tolist() == [[0, 1]]


def test_of_tags_that_are_no_iob2_f1_is_the_accuracy_of_words() -> None:
    counts = count_entities([["NOUN", "VERB", "VERB"]], [["NOUN", "NOUN", None]], ["NOUN", "VERB"])
    assert counts.score().f1 == 0.5
    assert counts.score("NOUN") == pytest.approx((1.0, 0.5, 2 / 3))


def test_the_interval_holds_the_score_and_shrinks_with_the_samples() -> None:
    widths = []
    for count in (20, 500):
        counts = count_entities(*drawn(count, seed=1), CLASSES)
        interval = f1_interval(counts)
        assert interval is not None
        low, high = interval
        assert low < counts.score().f1 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_about_95_of_100_intervals_hold_the_score_of_all_samples() -> None:
    whole = count_entities(*drawn(20_000, seed=2), CLASSES).score().f1
    held = 0
    for seed in range(60):
        interval = f1_interval(count_entities(*drawn(60, seed=100 + seed), CLASSES))
        assert interval is not None
        held += interval[0] <= whole <= interval[1]
    assert held >= 52


def test_a_difference_is_shown_on_the_same_samples() -> None:
    predicted, true = drawn(200, seed=3)
    right, drawn_ones = count_entities(true, true, CLASSES), count_entities(predicted, true, CLASSES)
    better, same = f1_difference_interval(right, drawn_ones), f1_difference_interval(right, right)
    assert better is not None
    assert better[0] > 0
    assert same == (0.0, 0.0)


def test_one_sample_has_no_interval() -> None:
    counts = count_entities([["O"]], [["O"]], CLASSES)
    assert f1_interval(counts) is None
    assert f1_difference_interval(counts, counts) is None
