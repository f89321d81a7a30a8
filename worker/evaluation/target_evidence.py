"""What outputs of labelled targets show beside their figures: intervals, each class, confusions, calibration.

Invariant: of the outputs only a few numbers a row are kept, computed some rows at a time. N rows, W outputs, C classes.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from service.spec.cards.evidence import (
    MOST_CLASSES,
    MOST_CONFUSED_CLASSES,
    MOST_CONFUSIONS,
    CalibrationBin,
    CalibrationCard,
    ClassCard,
    ConfusionCard,
    Mistake,
    TargetEvidence,
)
from worker.evaluation.bootstrap import Groups, Interval, Numbers, correlation, draws, intervals_of, ratio
from worker.evaluation.evidence import wilson_interval
from worker.targets import Target, Targets

CALIBRATION_BINS = 15
_VALUES_AT_ONCE = 2**22
_MOST_GROUPED_CLASSES = 1_000
"""Classes of which each group of rows has counts of its own."""


def target_evidence(
    outputs: Tensor,
    labels: Tensor,
    targets: Targets,
    *,
    only: Collection[str] | None = None,
    lengths: Sequence[int] | None = None,
) -> dict[str, TargetEvidence]:
    """The evidence of outputs (N, W) against labels (N,) or (N, M), by target; those without any label are left out.

    ``lengths`` says how many consecutive rows are parts of one sample, and drawn together.
    """
    samples = None if lengths is None else np.repeat(np.arange(len(lengths)), lengths)
    found = {}
    for index, (target, part) in enumerate(zip(targets, targets.split(outputs), strict=True)):
        if only is not None and target.name not in only:
            continue
        wanted = targets.labels_of(labels, index)
        known = target.is_known(wanted)
        if not bool(known.any()):
            continue
        counts = None if samples is None else np.bincount(samples[known.cpu().numpy()], minlength=len(lengths or ()))
        groups = Groups(int(known.sum()), lengths=None if counts is None else counts.tolist())
        part, wanted = part[known.to(part.device)], wanted[known]
        if target.classes is None:
            found[target.name] = TargetEvidence(intervals=number_intervals(part[:, 0], wanted, groups, scale=target.scale))
        elif target.is_multi_label:
            found[target.name] = _of_labels(target, part, wanted, groups)
        else:
            found[target.name] = _of_classes(target, part, wanted, groups)
    return found


def number_intervals(outputs: Tensor, labels: Tensor, groups: Groups, *, scale: float = 1.0) -> dict[str, Interval]:
    """Intervals of :func:`worker.evaluation.metrics.regression_metrics` of outputs (N,) against values (N,).

    Those of the rank correlation are by the ranks among all rows.
    """
    from scipy.stats import rankdata

    ours, true = (each.to("cpu", torch.float64).numpy() for each in (outputs, labels))
    errors = ours - true
    # Of numbers far from 0 the sums of squares would lose what they differ by.
    centred = ours - ours.mean(), true - true.mean()
    ranks = [each - each.mean() for each in (rankdata(ours), rankdata(true))]
    drawn = draws(groups.count)
    sums = drawn @ groups.sums(np.ones_like(errors), errors**2, np.abs(errors), centred[1], centred[1] ** 2)
    count, squared, absolute, total, total_squared = sums.T
    spread = total_squared - total**2 / count
    values = {
        "mse": squared / count * scale**2,
        "mae": absolute / count * scale,
        "pearson": correlation(drawn @ _moments(groups, *centred)),
        "spearman": correlation(drawn @ _moments(groups, *ranks)),
        "r2": 1 - np.divide(squared, spread, out=np.full_like(squared, np.inf), where=spread > 0),
    }
    return intervals_of(values, groups)


def _moments(groups: Groups, x: Numbers, y: Numbers) -> Numbers:
    return groups.sums(np.ones_like(x), x, y, x * x, y * y, x * y)


@dataclass(frozen=True)
class _Predictions:
    """What is kept of each row's outputs (N,)."""

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: Numbers
    """Probability of what is predicted."""
    loss: Numbers
    in_top_5: NDArray[np.bool_]


def _of_classes(target: Target, outputs: Tensor, labels: Tensor, groups: Groups) -> TargetEvidence:
    seen = _predictions(target, outputs, labels)
    names, right = target.classes or (), seen.labels == seen.predicted
    drawn = draws(groups.count)
    ones = np.ones(len(right))
    count, correct, loss, top_5 = (drawn @ groups.sums(ones, right, seen.loss, seen.in_top_5)).T
    values = {"accuracy": correct / count, "loss": loss / count}
    if len(names) > 5:
        values["top_5_accuracy"] = top_5 / count
    if len(names) <= _MOST_GROUPED_CLASSES:
        hits = drawn @ groups.class_counts(seen.labels, len(names), right)
        given = drawn @ (groups.class_counts(seen.predicted, len(names)) + groups.class_counts(seen.labels, len(names)))
        values["macro_f1"] = ratio(ratio(2 * hits, given).sum(axis=1), (given > 0).sum(axis=1).astype(np.float64))
    true, given_by_class = (np.bincount(each, minlength=len(names)) for each in (seen.labels, seen.predicted))
    return TargetEvidence(
        intervals=intervals_of(values, groups),
        classes=class_cards(names, np.bincount(seen.labels[right], minlength=len(names)), given_by_class, true),
        confusion=_confusion(names, seen),
        mistakes=list(_mistakes(names, seen)),
        calibration=calibration_card(seen.confidence, right),
    )


def _predictions(target: Target, outputs: Tensor, labels: Tensor) -> _Predictions:
    pieces = []
    for logits, wanted in _some_rows(outputs, labels):
        logits, wanted = logits.to(torch.float64), wanted.to(logits.device)
        decided, log_probabilities = target.decided(wanted), logits.log_softmax(dim=1)
        confidence, predicted = log_probabilities.exp().max(dim=1)
        loss = (
            functional.nll_loss(log_probabilities, decided, reduction="none")
            if target.label_kind == "class"
            else -(wanted.to(torch.float64) * log_probabilities).sum(dim=1)
        )
        best = (logits.topk(min(5, logits.shape[1])).indices == decided[:, None]).any(dim=1)
        pieces.append([each.cpu().numpy() for each in (decided, predicted, confidence, loss, best)])
    return _Predictions(*(np.concatenate(each) for each in zip(*pieces, strict=True)))


def _some_rows(outputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, _VALUES_AT_ONCE // outputs.shape[1])
    yield from zip(torch.split(outputs, size), torch.split(labels, size), strict=True)


def _of_labels(target: Target, outputs: Tensor, labels: Tensor, groups: Groups) -> TargetEvidence:
    """Of classes that do not exclude each other."""
    names = target.classes or ()
    wanted, chosen = (labels > 0).cpu().numpy(), (outputs > 0).cpu().numpy()
    losses = []
    for logits, part in _some_rows(outputs, labels):
        errors = functional.binary_cross_entropy_with_logits(logits.double(), part.to(logits.device).double(), reduction="none")
        losses.append(errors.mean(dim=1).cpu().numpy())
    drawn = draws(groups.count)
    by_class = [groups.sums(*each.T) for each in (wanted & chosen, chosen, wanted)]
    hits, given, true = (drawn @ each for each in by_class)
    said = given + true
    count, exact, loss = (drawn @ groups.sums(np.ones(len(wanted)), (wanted == chosen).all(axis=1), np.concatenate(losses))).T
    values = {
        "micro_f1": ratio(2 * hits.sum(axis=1), said.sum(axis=1)),
        "macro_f1": ratio(ratio(2 * hits, said).sum(axis=1), (said > 0).sum(axis=1).astype(np.float64)),
        "exact_match": exact / count,
        "loss": loss / count,
    }
    sizes = [each.sum(axis=0).astype(np.int64) for each in by_class]
    return TargetEvidence(
        intervals=intervals_of(values, groups),
        classes=class_cards(names, *sizes),
        calibration=_calibration_of_labels(outputs, wanted),
    )


def _calibration_of_labels(outputs: Tensor, wanted: NDArray[np.bool_]) -> CalibrationCard:
    """Of each yes or no of each row (N, C), by the probability that is given to the one that is said."""
    bins = np.zeros((3, CALIBRATION_BINS))
    for logits, true in _some_rows(outputs, torch.from_numpy(wanted)):
        yes = logits.double().sigmoid().cpu().numpy().ravel()
        said = yes > 0.5
        bins += _binned(np.where(said, yes, 1 - yes), said == true.numpy().ravel())
    return _calibration(bins)


def class_cards(
    names: Sequence[str],
    hits: NDArray[np.int64],
    predicted: NDArray[np.int64],
    true: NDArray[np.int64],
) -> list[ClassCard]:
    """Each class (C,) by how often it was rightly predicted, predicted, and the label."""
    recall = ratio(hits.astype(np.float64), true.astype(np.float64))
    precision = ratio(hits.astype(np.float64), predicted.astype(np.float64))
    f1 = ratio(2 * hits.astype(np.float64), (predicted + true).astype(np.float64))
    # Classes that have no rows say nothing: they are the first to be left out.
    chosen = sorted(np.lexsort((recall, true == 0))[:MOST_CLASSES].tolist())
    return [
        ClassCard(
            name=names[at],
            rows=int(true[at]),
            predicted=int(predicted[at]),
            precision=float(precision[at]),
            recall=float(recall[at]),
            recall_interval=wilson_interval(float(recall[at]), int(true[at])) if true[at] else None,
            f1=float(f1[at]),
        )
        for at in chosen
    ]


def _confusion(names: Sequence[str], seen: _Predictions) -> ConfusionCard | None:
    size = len(names)
    if size > MOST_CONFUSED_CLASSES:
        return None
    counts = np.bincount(seen.labels * size + seen.predicted, minlength=size * size).reshape(size, size)
    return ConfusionCard(classes=list(names), counts=counts.tolist())


def _mistakes(names: Sequence[str], seen: _Predictions) -> Iterator[Mistake]:
    wrong = seen.labels != seen.predicted
    pairs, counts = np.unique(seen.labels[wrong] * len(names) + seen.predicted[wrong], return_counts=True)
    for at in np.argsort(-counts, kind="stable")[:MOST_CONFUSIONS]:
        label, predicted = divmod(int(pairs[at]), len(names))
        yield Mistake(label=names[label], predicted=names[predicted], rows=int(counts[at]))


def calibration_card(confidence: Numbers, right: NDArray[np.bool_]) -> CalibrationCard:
    """The calibration of predictions (N,) by their probabilities."""
    return _calibration(_binned(confidence, right))


def _binned(confidence: Numbers, right: NDArray[np.bool_]) -> Numbers:
    """Predictions, the sums of their probabilities and how many are right, in each bin, (3, bins); a bin has its upper end."""
    places = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    return np.stack([np.bincount(places, weights=each, minlength=CALIBRATION_BINS) for each in (None, confidence, right)])


def _calibration(bins: Numbers) -> CalibrationCard:
    rows, confidence, right = bins
    full = rows > 0
    return CalibrationCard(
        error=float(np.abs(confidence - right).sum() / rows.sum()),
        bins=[
            CalibrationBin(rows=int(count), confidence=float(sure / count), accuracy=float(hits / count))
            for count, sure, hits in bins[:, full].T
        ],
    )
