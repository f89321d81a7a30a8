"""What the outputs of each task's networks are worth; the figures themselves are tested beside their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from worker.data.samples import Samples
from worker.targets import Target, Targets
from worker.tasks import TASKS

CPU = torch.device("cpu")
LABELLED, EMBEDDING, CAUSAL = TASKS["image-classification"], TASKS["sentence-embedding"], TASKS["causal-lm"]
CLASSES, NONE = Targets.of_classes(["a", "b"]), Targets(())
NO_LABELS = torch.empty(4, 0)


def no_rows(count: int) -> Samples:
    raise AssertionError("only a language model is compared with its training rows")


def tokens(*predicted: int, true: tuple[int, ...], loss: float = 1.0) -> Tensor:
    return torch.tensor([[loss, each, right] for each, right in zip(predicted, true, strict=True)], dtype=torch.float64)


def test_labels_are_scored_where_they_are() -> None:
    outputs, labels = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 1, -1])
    measured = LABELLED.measure(outputs, labels, CLASSES)
    assert measured.result is not None
    assert (measured.result.score, measured.rows) == (0.5, 2)
    assert measured.metrics["label"]["accuracy"] == 0.5
    assert measured.interval is not None
    assert measured.interval[0] < 0.5 < measured.interval[1]


def test_without_any_label_there_is_no_score_and_nothing_to_tell_from_a_guess() -> None:
    outputs, labels = torch.randn(3, 2), torch.full((3,), -1)
    measured = LABELLED.measure(outputs, labels, CLASSES)
    assert (measured.result, measured.metrics, measured.rows, measured.interval) == (None, {}, 0, None)
    assert not LABELLED.can_score(labels, CLASSES)
    assert LABELLED.compare_with_guess(outputs, labels, CLASSES, network=nn.Identity(), training_rows=no_rows) == []


def test_only_the_targets_that_a_teacher_teaches_are_scored() -> None:
    targets = Targets((Target("size", None), Target("colour", ("red", "blue"))))
    labels = torch.tensor([[1.0, math.nan], [2.0, math.nan], [3.0, 1.0]])
    assert LABELLED.can_score(labels[:2], targets)
    assert not LABELLED.can_score(labels[:2], targets, only={"colour"})
    assert LABELLED.measure(torch.randn(3, 3), labels, targets, only={"colour"}).rows == 1


def test_a_score_of_classes_alone_is_a_share() -> None:
    number = Targets((Target("size", None),))
    two = Targets((Target("a", ("x", "y")), Target("b", ("x", "y"))))
    assert [LABELLED.score_is_share(each) for each in (CLASSES, two, number)] == [True, True, False]
    assert [LABELLED.score_name(each) for each in (CLASSES, two, number)] == ["accuracy", "score", "score"]
    assert (EMBEDDING.score_is_share(NONE), CAUSAL.score_is_share(NONE)) == (False, True)
    assert (EMBEDDING.score_name(NONE), CAUSAL.score_name(NONE)) == ("score", "accuracy")


def test_embeddings_are_worth_what_their_similarities_have_of_the_teachers() -> None:
    teacher = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    turned = teacher @ torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1))).Q
    measured = EMBEDDING.measure(turned, teacher, NONE)
    assert measured.result is not None
    assert measured.result.score == pytest.approx(1.0)
    assert measured.result.loss == pytest.approx(0.0, abs=1e-6)
    assert measured.metrics["embedding"]["similarity_pearson"] == pytest.approx(1.0)
    assert EMBEDDING.agreement(teacher, turned, NONE).value == pytest.approx(1.0)
    assert EMBEDDING.paired_interval(teacher, turned, teacher, NONE) == (0.0, 0.0)
    assert EMBEDDING.compare_with_guess(turned, teacher, NONE, network=nn.Identity(), training_rows=no_rows) == []


def test_a_language_model_is_scored_by_the_tokens_of_its_texts() -> None:
    outputs = tokens(1, 2, 3, 4, true=(1, 2, 3, 9), loss=2.0)
    measured = CAUSAL.measure(outputs, NO_LABELS, NONE)
    assert measured.result is not None
    assert (measured.result.score, measured.result.loss, measured.rows) == (0.75, 2.0, 4)
    assert measured.metrics["next token"]["perplexity"] == pytest.approx(math.exp(2.0))
    assert CAUSAL.can_score(NO_LABELS, NONE)


def test_language_models_compare_token_by_token_if_their_tokens_are_the_same() -> None:
    first, second = tokens(1, 2, 3, true=(1, 2, 4)), tokens(1, 5, 3, true=(1, 2, 4))
    assert CAUSAL.agreement(first, second, NONE).value == pytest.approx(2 / 3)
    other = tokens(1, 2, 3, true=(1, 2, 5))
    assert CAUSAL.agreement(first, other, NONE).value is None
    assert CAUSAL.paired_interval(first, other, NO_LABELS, NONE) is None
    many, worse = first.repeat(100, 1), second.repeat(100, 1)
    interval = CAUSAL.paired_interval(many, worse, NO_LABELS, NONE)
    assert interval is not None
    assert interval[0] <= 1 / 3 <= interval[1]


def test_several_inputs_by_name_are_predicted_as_one_is() -> None:
    class Sum(nn.Module):
        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return inputs["first"] + inputs["second"]

    first, second = torch.randn(300, 2), torch.randn(300, 2)
    samples = Samples({"first": first, "second": second}, torch.zeros(300, dtype=torch.int64), None, CPU)
    assert torch.equal(LABELLED.predict(Sum(), samples), first + second)
