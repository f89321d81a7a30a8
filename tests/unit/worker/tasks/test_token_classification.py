"""What the outputs of words are worth, and which of them count."""

import math

import pytest
import torch
from torch import Tensor, nn

from worker.data.samples import Samples
from worker.data.split import Split
from worker.data.text.words import NO_WORD
from worker.targets import Targets
from worker.tasks.token_classification import TokenClassification

TASK = TokenClassification()
TAGS = Targets.of_classes(["B-LOC", "B-PER", "I-PER", "O"], name="tags")
SPEECH = Targets.of_classes(["NOUN", "VERB"], name="tags")
LABELS = torch.tensor([[1, 2, 3], [0, NO_WORD, NO_WORD], [3, 3, -1]])


def outputs_of(predicted: list[int], targets: Targets = TAGS) -> Tensor:
    """Outputs (M, W) of words that are these classes to the network."""
    return torch.nn.functional.one_hot(torch.tensor(predicted), targets.width).float() * 4


def no_rows(count: int) -> Samples:
    raise AssertionError("words are compared with no training rows")


def test_of_iob2_tags_the_score_is_the_f1_of_entities() -> None:
    outputs = outputs_of([1, 2, 3, 1, 3, 3, 0])  # the place is taken for a person, and the last word has no label
    measured = TASK.measure(outputs, LABELS, TAGS)
    assert measured.result is not None
    assert measured.result.score == pytest.approx(0.5)
    assert measured.rows == 6
    assert measured.metrics["tags"]["precision"] == measured.metrics["tags"]["recall"] == 0.5
    assert measured.metrics["tags"]["word_accuracy"] == pytest.approx(5 / 6)
    assert measured.metrics["tags: PER"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3})
    assert measured.metrics["tags: LOC"]["f1"] == 0.0
    assert (TASK.score_name(TAGS), TASK.score_is_share(TAGS)) == ("score", False)


def test_of_other_tags_the_score_is_the_accuracy_of_words() -> None:
    labels = torch.tensor([[0, 1], [1, NO_WORD]])
    measured = TASK.measure(outputs_of([0, 0, 1], SPEECH), labels, SPEECH)
    assert measured.result is not None
    assert measured.result.score == pytest.approx(2 / 3)
    assert measured.metrics.keys() == {"tags"}
    assert measured.metrics["tags"]["accuracy"] == pytest.approx(2 / 3)
    assert (TASK.score_name(SPEECH), TASK.score_is_share(SPEECH)) == ("accuracy", True)


def test_the_loss_is_the_mean_over_words_with_a_label() -> None:
    outputs = outputs_of([1, 2, 3, 0, 3, 3, 0])
    result = TASK.score(outputs, LABELS, TAGS)
    assert result.loss == pytest.approx(math.log(1 + 3 * math.exp(-4)), rel=1e-5)


def test_without_a_label_there_is_no_score() -> None:
    labels = torch.full((2, 2), -1)
    assert not TASK.can_score(labels, TAGS)
    assert TASK.measure(outputs_of([0, 1, 2, 3]), labels, TAGS).result is None


def test_a_teacher_that_finds_nothing_is_at_chance_and_one_that_finds_all_is_not() -> None:
    labels = torch.tensor([[1, 2, 3]] * 40)
    blind, right = ([each] * 40 for each in ([3, 3, 3], [1, 2, 3]))
    compared = [
        TASK.compare_with_guess(
            outputs_of([tag for row in rows for tag in row]), labels, TAGS, network=nn.Identity(), training_rows=no_rows
        )[0]
        for rows in (blind, right)
    ]
    assert [each.is_at_chance for each in compared] == [True, False]
    assert str(compared[1]) == "an F1 of 100.0% of 40 entities (95% interval 100.0% to 100.0%), where finding none has 0"


def test_only_words_are_predictions() -> None:
    mask = TASK.prediction_mask(LABELS)
    assert mask.sum(dim=1).tolist() == [3, 1, 3]
    assert TASK.label_rows(LABELS).tolist() == [1, 2, 3, 0, 3, 3, -1]


def test_classes_by_another_order_leave_places_without_a_word() -> None:
    reversed_tags = Targets.of_classes(list(TAGS.classes)[::-1], name="tags")
    assert TASK.relabel(LABELS, TAGS, reversed_tags).tolist() == [[2, 1, 0], [3, NO_WORD, NO_WORD], [0, 0, -1]]


def test_words_without_any_label_take_a_teachers_classes() -> None:
    labels = torch.tensor([[-1, -1, -1], [-1, NO_WORD, NO_WORD]])
    assert torch.equal(TASK.relabel(labels, Targets.of_classes([], name="tags"), TAGS), labels)


def test_words_without_a_label_and_classes_without_a_word_are_told() -> None:
    split = Split([["a", "b", "c"], ["d"], ["e", "f", "g"]], LABELS, part="test")
    told = {warning.code: warning.message for warning in TASK.label_warnings(split, TAGS)}
    assert told["labels_missing"] == (
        "1 of 7 words of the test split have no value of 'tags' and are not scored; the first: test split, row 2"
    )
    assert "class_without_rows" not in told
    (unseen,) = TASK.label_warnings(Split(split.inputs[:1], LABELS[:1], part="validation"), TAGS)
    assert unseen.message.startswith("1 of the 4 classes of 'tags' have no word in the validation split")
