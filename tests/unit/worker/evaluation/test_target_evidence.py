"""What outputs show beside their figures, against scipy's bootstrap and scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics
from torch import Tensor
from torch.nn import functional

from service.spec.cards.evidence import TargetEvidence
from worker.evaluation.metrics import classification_metrics, multi_label_metrics, regression_metrics
from worker.evaluation.target_evidence import target_evidence
from worker.targets import Target, Targets

ROWS, CLASSES = 300, 7
LETTERS = "abcdefg"


def classified(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Logits and labels of a classifier that is right more often than not; a tenth of the rows have no label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (rows,), generator=generator)
    logits = torch.randn(rows, CLASSES, generator=generator) + 2.0 * functional.one_hot(labels, CLASSES)
    labels[::10] = -1
    return logits, labels


def evidence(outputs: Tensor, labels: Tensor, target: Target, **options: Any) -> TargetEvidence:
    (found,) = target_evidence(outputs, labels, Targets((target,)), **options).values()
    return found


def percentile(statistic: Callable[..., float], *columns: Any) -> tuple[float, float]:
    """scipy's interval of a statistic of rows."""
    drawn = stats.bootstrap(
        columns, statistic, paired=True, vectorized=False, n_resamples=600, method="percentile", rng=np.random.default_rng(7)
    )
    return drawn.confidence_interval.low, drawn.confidence_interval.high


def test_intervals_of_classes_are_those_of_scipys_bootstrap() -> None:
    logits, labels = classified()
    found = evidence(logits, labels, Target("label", tuple(LETTERS)))
    known = labels >= 0
    true, loss = labels[known].numpy(), functional.cross_entropy(logits[known], labels[known], reduction="none").numpy()
    predicted, in_top = (
        logits[known].argmax(dim=1).numpy(),
        (logits[known].topk(5).indices == labels[known, None]).any(dim=1).numpy(),
    )
    wanted = {
        "accuracy": percentile(lambda a, b: float((a == b).mean()), true, predicted),
        "loss": percentile(lambda a: float(a.mean()), loss),
        "top_5_accuracy": percentile(lambda a: float(a.mean()), in_top),
        "macro_f1": percentile(lambda a, b: float(metrics.f1_score(a, b, average="macro")), true, predicted),
    }
    assert found.intervals.keys() == wanted.keys()
    figures = classification_metrics(logits, labels)
    for name, ends in wanted.items():
        low, high = found.intervals[name]
        assert found.intervals[name] == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0])), name
        assert low < figures[name] < high


def test_classes_confusions_and_calibration_are_scikit_learns() -> None:
    logits, labels = classified()
    found = evidence(logits, labels, Target("label", tuple(LETTERS)))
    known = labels >= 0
    true, predicted = labels[known].numpy(), logits[known].argmax(dim=1).numpy()
    precision, recall, f1, rows = metrics.precision_recall_fscore_support(true, predicted)
    assert [each.name for each in found.classes] == list(LETTERS)
    for name, of_class in {"precision": precision, "recall": recall, "f1": f1, "rows": rows}.items():
        assert [getattr(each, name) for each in found.classes] == pytest.approx(of_class.tolist())
    assert all(each.recall_interval and each.recall_interval[0] < each.recall < each.recall_interval[1] for each in found.classes)
    assert found.confusion is not None
    table = metrics.confusion_matrix(true, predicted)
    assert found.confusion.counts == table.tolist()
    first = found.mistakes[0]
    assert (
        first.rows
        == table[~np.eye(CLASSES, dtype=bool)].max()
        == table[LETTERS.index(first.label), LETTERS.index(first.predicted)]
    )
    assert found.calibration is not None
    assert found.calibration.error == pytest.approx(classification_metrics(logits, labels)["calibration_error"], abs=1e-6)
    assert sum(each.rows for each in found.calibration.bins) == len(true)


def test_intervals_of_numbers_are_those_of_scipys_bootstrap_also_far_from_0() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(ROWS, generator=generator) + 50
    outputs = values + 0.7 * torch.randn(ROWS, generator=generator)
    values[::10] = torch.nan
    found = evidence(outputs[:, None], values[:, None], Target("year", None, scale=3.0))
    known = values.isfinite()
    figures = regression_metrics(outputs, values, scale=3.0)
    assert found.intervals.keys() == figures.keys()
    true, ours = values[known].numpy(), outputs[known].numpy()
    wanted = {
        "mse": percentile(lambda a, b: float(9 * ((a - b) ** 2).mean()), true, ours),
        "mae": percentile(lambda a, b: float(3 * np.abs(a - b).mean()), true, ours),
        "pearson": percentile(lambda a, b: float(np.corrcoef(a, b)[0, 1]), true, ours),
        "spearman": percentile(lambda a, b: float(stats.spearmanr(a, b).statistic), true, ours),
        "r2": percentile(lambda a, b: float(metrics.r2_score(a, b)), true, ours),
    }
    for name, ends in wanted.items():
        assert found.intervals[name] == pytest.approx(ends, abs=0.12 * (ends[1] - ends[0])), name


def test_classes_that_do_not_exclude_each_other_are_counted_one_by_one() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = (torch.rand(ROWS, 3, generator=generator) < torch.tensor([0.5, 0.2, 0.1])).float()
    logits = torch.randn(ROWS, 3, generator=generator) + 3 * labels - 1.5
    found = evidence(logits, labels, Target("tags", ("a", "b", "c"), label_kind="labels"))
    chosen, figures = (logits > 0).numpy(), multi_label_metrics(logits, labels)
    precision, recall, _, rows = metrics.precision_recall_fscore_support(labels.numpy() > 0, chosen)
    assert [each.precision for each in found.classes] == pytest.approx(precision.tolist())
    assert [each.recall for each in found.classes] == pytest.approx(recall.tolist())
    assert [each.rows for each in found.classes] == rows.tolist()
    assert found.intervals.keys() == figures.keys() - {"mean_average_precision"}
    for name, (low, high) in found.intervals.items():
        assert low < figures[name] < high, name
    micro = percentile(lambda *each: float(metrics.f1_score(np.stack(each[:3], 1), np.stack(each[3:], 1), average="micro")),
                       *(labels.numpy() > 0).T, *chosen.T)  # fmt: skip
    assert found.intervals["micro_f1"] == pytest.approx(micro, abs=0.1 * (micro[1] - micro[0]))
    assert found.confusion is None
    assert found.calibration is not None
    assert sum(each.rows for each in found.calibration.bins) == 3 * ROWS


def test_parts_of_one_sample_are_drawn_together() -> None:
    logits, labels = classified()
    target = Target("label", tuple(LETTERS))
    alone = evidence(logits, labels, target)
    fourfold = evidence(logits.repeat_interleave(4, dim=0), labels.repeat_interleave(4), target, lengths=[4] * ROWS)
    width = alone.intervals["accuracy"][1] - alone.intervals["accuracy"][0]
    assert fourfold.intervals["accuracy"] == pytest.approx(alone.intervals["accuracy"], abs=0.1 * width)


def test_many_rows_are_drawn_in_groups_and_tell_as_much() -> None:
    logits, labels = classified(60_000)
    low, high = evidence(logits, labels, Target("label", tuple(LETTERS))).intervals["accuracy"]
    share = classification_metrics(logits, labels)["accuracy"]
    half = 1.96 * float(np.sqrt(share * (1 - share) / 54_000))
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.2 * half)


def test_of_many_classes_those_of_the_lowest_recall_are_told() -> None:
    size = 250
    labels = torch.arange(size).repeat(4)
    predicted = labels.where(torch.arange(len(labels)) >= size // 2, (labels + 1) % size)
    found = evidence(10.0 * functional.one_hot(predicted, size), labels, Target("label", tuple(map(str, range(size)))))
    assert len(found.classes) == 200
    assert {str(each) for each in range(size // 2)} <= {each.name for each in found.classes}
    assert found.confusion is None
    assert len(found.mistakes) == 20


def test_targets_without_labels_and_those_that_are_not_asked_for_are_left_out() -> None:
    targets = Targets((Target("a", ("x", "y")), Target("b", None), Target("c", None)))
    labels = torch.tensor([[0.0, 1.0, torch.nan], [1.0, 2.0, torch.nan], [1.0, 4.0, torch.nan]])
    outputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert target_evidence(outputs, labels, targets).keys() == {"a", "b"}
    assert target_evidence(outputs, labels, targets, only=["b"]).keys() == {"b"}


@pytest.mark.parametrize("rows", [1, 2])
def test_so_few_rows_break_nothing(rows: int) -> None:
    labels = torch.ones(rows, dtype=torch.int64)
    found = evidence(torch.zeros(rows, 2), labels, Target("label", ("a", "b")))
    assert found.intervals == ({} if rows == 1 else found.intervals)
    assert evidence(torch.ones(rows, 1), torch.ones(rows, 1), Target("n", None)).intervals.keys() <= {
        "mse",
        "mae",
        "pearson",
        "spearman",
    }
