"""Figures against hand values and against other libraries' computations, and what they are where nothing can be computed."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

from worker.evaluation.metrics import (
    agreement_metrics,
    classification_metrics,
    embedding_metrics,
    interval_95,
    regression_metrics,
)

NAN = float("nan")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_labels(count: int, *, num_classes: int) -> Tensor:
    return torch.randint(num_classes, (count,), generator=torch.Generator().manual_seed(1))


def test_classification_figures_are_those_of_scikit_learn() -> None:
    logits, labels = drawn(400, 8), drawn_labels(400, num_classes=8)
    logits[torch.arange(0, 400, 3), labels[::3]] += 3
    found = classification_metrics(logits, labels)

    probabilities, wanted = logits.double().softmax(dim=1).numpy(), labels.numpy()
    assert found == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(wanted, probabilities.argmax(1)),
            "top_5_accuracy": sklearn.top_k_accuracy_score(wanted, probabilities, k=5),
            "macro_f1": sklearn.f1_score(wanted, probabilities.argmax(1), average="macro"),
            "loss": sklearn.log_loss(wanted, probabilities),
            "calibration_error": found["calibration_error"],
        },
        rel=1e-12,
    )


def test_calibration_error_is_the_gap_of_each_bin_by_its_share() -> None:
    def logits_of(*shares: float) -> Tensor:
        return torch.tensor([[math.log(share), math.log(1 - share)] for share in shares], dtype=torch.float64)

    # Bins of 1/15: 0.61 and 0.62 share one, 0.9 and certainty have their own.
    logits = torch.cat([logits_of(0.61, 0.62, 0.9), torch.tensor([[0.0, 800.0]])])
    labels = torch.tensor([0, 1, 0, 1])

    expected = 2 / 4 * abs(0.5 - 0.615) + 1 / 4 * abs(1 - 0.9) + 0
    assert classification_metrics(logits, labels)["calibration_error"] == pytest.approx(expected, rel=1e-6)


def test_certain_answers_share_the_last_bin_with_almost_certain_ones() -> None:
    logits = torch.tensor([[800.0, 0.0], [math.log(0.96 / 0.04), 0.0]], dtype=torch.float64)
    found = classification_metrics(logits, torch.tensor([1, 0]))["calibration_error"]
    assert found == pytest.approx(abs(0.5 - 0.98), rel=1e-6)


def test_logits_between_0_and_1_are_still_logits() -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    confidence = 1 / (1 + math.exp(-1))
    found = classification_metrics(logits, torch.tensor([1, 0]))
    assert found["calibration_error"] == pytest.approx(1 - confidence, rel=1e-6)


def test_macro_f1_by_hand_leaves_out_a_class_that_nobody_names() -> None:
    choices, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    logits = torch.nn.functional.one_hot(choices, 3).float()
    # Class 0: precision 1/2, recall 1. Class 1: precision 1, recall 2/3. Class 2 is in neither.
    assert classification_metrics(logits, labels)["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_missing_labels_take_no_part() -> None:
    logits, labels = drawn(50, 7), drawn_labels(50, num_classes=7)
    holed = labels.clone()
    holed[::3] = -1
    present = holed >= 0

    assert classification_metrics(logits, holed) == classification_metrics(logits[present], labels[present])
    with pytest.raises(ValueError, match="no sample has a label"):
        classification_metrics(logits, torch.full((50,), -1))


@pytest.mark.parametrize(("num_classes", "there"), [(1, False), (2, False), (5, False), (6, True)])
def test_the_five_best_of_five_classes_are_no_figure(num_classes: int, there: bool) -> None:
    found = classification_metrics(drawn(20, num_classes), torch.zeros(20, dtype=torch.int64))
    assert ("top_5_accuracy" in found) == there


def test_regression_figures_by_hand() -> None:
    found = regression_metrics(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 3.0, 2.0, 10.0]))
    # Errors 0, 1, 2, 2; the values' mean is 4 and their squared distances from it sum to 50. Ranks 1 2 3 4 against 1 3 2 4.
    assert found == pytest.approx(
        {
            "mse": 9 / 4,
            "mae": 5 / 4,
            "r2": 1 - 9 / 50,
            "spearman": 0.8,
            "pearson": 35 / math.sqrt(28.75 * 50),
        },
        rel=1e-9,
    )


def test_correlations_of_small_values_and_of_ties_are_exact() -> None:
    values = torch.tensor([1e-6, 2e-6, 3e-6, 3e-6], dtype=torch.float64)
    found = regression_metrics(values * 5 + 1e-7, values)
    assert found["pearson"] == pytest.approx(1)
    assert found["spearman"] == pytest.approx(1)
    assert regression_metrics(values, values)["r2"] == 1
    assert regression_metrics(values.flip(0), values)["r2"] < 0


def test_missing_numbers_take_no_part() -> None:
    outputs, values = drawn(30), drawn(30, seed=1)
    holed = values.clone()
    holed[::4] = NAN
    present = ~holed.isnan()

    assert regression_metrics(outputs, holed) == regression_metrics(outputs[present], values[present])
    with pytest.raises(ValueError, match="no sample has a value"):
        regression_metrics(outputs, torch.full((30,), NAN))


@pytest.mark.parametrize(
    ("outputs", "values", "expected"),
    [
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], {"pearson": 0, "spearman": 0, "r2": 0}),
        ([5.0, 5.0, 5.0], [5.0, 5.0, 5.0], {"pearson": 0, "spearman": 0, "r2": 1}),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], {"pearson": 0, "spearman": 0, "r2": 0}),
        # Constant but for rounding.
        ([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0], {"pearson": 0, "spearman": 0}),
        ([1.0], [1.0], {"mse": 0, "pearson": 0, "spearman": 0, "r2": 1}),
        ([1.0], [2.0], {"mse": 1, "pearson": 0, "spearman": 0, "r2": 0}),
    ],
)
def test_what_a_constant_or_single_value_cannot_tell_is_0_not_nan(
    outputs: list[float], values: list[float], expected: dict[str, float]
) -> None:
    found = regression_metrics(torch.tensor(outputs, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    assert {name: found[name] for name in expected} == expected
    assert all(map(math.isfinite, found.values()))


def test_embeddings_of_one_width_are_compared_row_by_row() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
    found = embedding_metrics(student, teacher)
    assert found["cosine"] == pytest.approx((1 + 0 + 7 / math.sqrt(50)) / 3)
    assert found["mse"] == pytest.approx((0 + 0 + 4 + 4 + 0 + 1) / 6)


def test_embeddings_of_two_widths_are_compared_by_the_similarities_of_their_pairs() -> None:
    student, teacher = drawn(40, 5), drawn(40, 9, seed=1)
    found = embedding_metrics(student, teacher)

    pairs = np.triu_indices(40, 1)
    one, other = (sklearn.pairwise.cosine_similarity(side.double().numpy())[pairs] for side in (student, teacher))
    first_ranks, second_ranks = (np.argsort(np.argsort(side)) for side in (one, other))
    assert found == pytest.approx(
        {"similarity_pearson": np.corrcoef(one, other)[0, 1], "similarity_spearman": np.corrcoef(first_ranks, second_ranks)[0, 1]}
    )


def test_a_turned_and_widened_space_has_the_same_similarities() -> None:
    student = drawn(30, 4)
    turned = student @ torch.linalg.qr(drawn(6, 6, seed=2)).Q[:4]
    found = embedding_metrics(student, turned)
    assert found["similarity_pearson"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 2])
def test_one_pair_or_none_correlates_with_nothing(rows: int) -> None:
    found = embedding_metrics(drawn(rows, 3), drawn(rows, 2))
    assert found == {"similarity_pearson": 0, "similarity_spearman": 0}


def test_of_many_embeddings_always_the_same_are_compared() -> None:
    student, teacher = drawn(2_100, 3), drawn(2_100, 2, seed=1)
    before = torch.random.get_rng_state()
    assert embedding_metrics(student, teacher) == embedding_metrics(student, teacher)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_agreement_and_divergence_by_hand() -> None:
    teacher = torch.tensor([[math.log(0.5), math.log(0.5)], [math.log(0.9), math.log(0.1)]])
    student = torch.tensor([[math.log(0.6), math.log(0.4)], [math.log(0.2), math.log(0.8)]])
    found = agreement_metrics(teacher, student)

    first = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.4)
    second = 0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)
    assert found == pytest.approx({"agreement": 0.5, "kl_divergence": (first + second) / 2}, rel=1e-6)


def test_a_certain_teacher_diverges_by_a_finite_number() -> None:
    found = agreement_metrics(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 0.0]]))
    assert found["kl_divergence"] == pytest.approx(math.log(2))
    assert agreement_metrics(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])) == {"agreement": 0, "kl_divergence": 1e4}


def test_the_interval_is_students() -> None:
    mean, half_width = interval_95([1.0, 2.0, 4.0])
    # t at 97.5 % with 2 degrees of freedom is 4.302653; the sample variance is 7/3.
    assert (mean, half_width) == pytest.approx((7 / 3, 4.302653 * math.sqrt(7 / 3 / 3)), rel=1e-6)


def test_repeats_that_agree_have_no_width_and_one_has_no_interval() -> None:
    assert interval_95([0.5, 0.5, 0.5]) == (0.5, 0.0)
    assert interval_95([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="at least one value"):
        interval_95([])


def test_each_kind_of_outputs_has_these_figures_and_no_others() -> None:
    classes = {"accuracy", "top_5_accuracy", "macro_f1", "calibration_error", "loss"}
    assert classification_metrics(drawn(20, 6), drawn_labels(20, num_classes=6)).keys() == classes
    assert regression_metrics(drawn(20), drawn(20, seed=1)).keys() == {"mse", "mae", "pearson", "spearman", "r2"}
    embeddings = {"cosine", "mse", "similarity_pearson", "similarity_spearman"}
    assert embedding_metrics(drawn(20, 2), drawn(20, 2, seed=1)).keys() == embeddings
    assert agreement_metrics(drawn(20, 2), drawn(20, 2, seed=1)).keys() == {"agreement", "kl_divergence"}
