"""What scores on few rows show, and what they do not: 95% intervals, and the score of a constant guess on the same rows.

A constant guess is always the largest class, or the mean of the numbers; for tokens see :mod:`worker.evaluation.token_evidence`.
Invariant: an interval is as wide as its rows demand, so that few rows show little: a score is called *at chance* only where they
suffice to tell. N rows, W outputs.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.evaluation.evaluate import f1_parts
from worker.targets import Targets

_NEAR_CHANCE = 0.2
"""Share of the way from a constant guess to a perfect score below which a score that may be a guess's counts as one."""
_ENOUGH_NUMBERS = 20
"""Rows from which R² of 0 and less counts, however wide its interval: single large errors make that very wide."""
_NORMAL_95 = 1.959963984540054

Interval = tuple[float, float]
"""The ends of a 95% interval; infinite where there are too few rows for one."""


@dataclass(frozen=True)
class GuessComparison(ABC):
    """One target's score on some rows, beside what a constant guess scores on them; a kind of target is a subclass."""

    target: str
    score: float
    """Higher is better; 1 at most."""
    interval: Interval
    constant: float
    """Score of a constant guess."""
    rows: int
    """Rows, or what else is counted, that the score is of."""

    @abstractmethod
    def __str__(self) -> str:
        """The score, with what it was measured on and what the guess has."""

    @property
    def is_better(self) -> bool:
        """Whether the score is shown to be better than a constant guess."""
        return self.interval[0] > self.constant

    @property
    def is_worse(self) -> bool:
        """Whether the score is shown to be worse than a constant guess."""
        return self.interval[1] < self.constant

    @property
    def is_at_chance(self) -> bool:
        """Whether the score is no better than a constant guess's, by the upper end of its interval."""
        return not self.is_better and self.interval[1] <= self.constant

    @property
    def near_chance(self) -> float:
        """The score up to which one counts as a guess's where it may be one."""
        return self.constant + _NEAR_CHANCE * (1 - self.constant)

    @property
    def is_near_chance(self) -> bool:
        """Whether the score may be a constant guess's, and the rows suffice to say that it is not much better."""
        return self.is_at_chance or (not self.is_better and self.interval[1] <= self.near_chance)

    @property
    def reported_as(self) -> str | None:
        """The name by which model cards report this score; None if what they report does not compare with it."""
        return None

    def least_for(self, reported: float) -> float:
        """Computes the least score that a network of the ``reported`` score has on as many rows, but for chance."""
        return reported


@dataclass(frozen=True)
class ClassComparison(GuessComparison):
    """Accuracy beside that of always the largest class."""

    knows_small_classes: bool = False
    """Whether the mean of the classes' recalls is above that of a guess: of unequal classes accuracy may hide what is known."""

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.score:.1%} of {self.rows:,} rows right (95% interval {low:.1%} to {high:.1%}), "
            f"where always the largest class has {self.constant:.1%}"
        )

    @property
    def is_better(self) -> bool:
        return super().is_better or self.knows_small_classes

    @property
    def reported_as(self) -> str:
        return "accuracy"

    def least_for(self, reported: float) -> float:
        return wilson_interval(reported, self.rows)[0]


@dataclass(frozen=True)
class LabelsComparison(GuessComparison):
    """The F1 of all yeses beside that of the best set of classes for every row."""

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"an F1 of {self.score:.1%} on {self.rows:,} rows (95% interval {low:.1%} to {high:.1%}), "
            f"where always the same classes have {self.constant:.1%}"
        )

    @property
    def reported_as(self) -> str:
        return "f1"


@dataclass(frozen=True)
class NumberComparison(GuessComparison):
    """R² beside that of always the mean."""

    def __str__(self) -> str:
        return f"R² {self.score:.4g} on {self.rows:,} rows, where always the mean has 0"

    @property
    def is_at_chance(self) -> bool:
        return super().is_at_chance or (self.score <= self.constant and self.rows >= _ENOUGH_NUMBERS)

    @property
    def reported_as(self) -> str:
        return "r2"


def compare_with_guess(
    outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
) -> list[GuessComparison]:
    """Compares the score of outputs (N, W) against labels (N,) or (N, M) with that of a constant guess, by target.

    Left out are targets that ``only`` does not name, and those whose labels are missing or all the same.
    """
    outputs, labels = outputs.detach().cpu().to(torch.float64), labels.cpu()
    found = []
    for index, (target, part) in enumerate(zip(targets, targets.split(outputs), strict=True)):
        if only is not None and target.name not in only:
            continue
        wanted = targets.labels_of(labels, index)
        known = target.is_known(wanted)
        part, wanted = part[known], wanted[known]
        if target.classes is not None:
            wanted = target.decided(wanted)
        if len(wanted) == 0 or bool((wanted == wanted[0]).all()):
            continue
        if target.is_multi_label:
            found.append(_labels(target.name, target.chosen(part), wanted))
            continue
        found.append(_classes(target.name, part, wanted) if target.classes is not None else _number(target.name, part, wanted))
    return found


def wilson_interval(share: float, count: int) -> Interval:
    """Computes Wilson's 95% score interval of a share of ``count`` rows (Wilson, 1927; Brown, Cai, DasGupta, 2001)."""
    squared = _NORMAL_95**2
    centre = (share + squared / (2 * count)) / (1 + squared / count)
    half = _NORMAL_95 / (1 + squared / count) * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def mean_interval(values: Tensor) -> Interval:
    """Computes the 95% interval of the mean of independent values (N,), by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return -math.inf, math.inf
    half = float(t.ppf(0.975, df=len(values) - 1)) * values.std(correction=1).item() / math.sqrt(len(values))
    mean = values.mean().item()
    return mean - half, mean + half


def finite_interval(interval: Interval) -> Interval | None:
    """Returns the interval, or None if an end is infinite."""
    return interval if all(map(math.isfinite, interval)) else None


def paired_interval(first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
    """Computes the 95% interval of one network's score less another's, both (N, W) on the same rows; None where there is none.

    Of several targets it is the mean of their intervals, which is too wide rather than too narrow: rows are shared.
    """
    intervals = []
    for index, (target, one, other) in enumerate(zip(targets, targets.split(first), targets.split(second), strict=True)):
        wanted = targets.labels_of(labels.to(first.device), index)
        known = target.is_known(wanted)
        one, other, wanted = (each[known].cpu().to(torch.float64) for each in (one, other, wanted))
        if len(wanted) == 0:
            continue
        if target.is_multi_label:
            intervals.append(mean_interval(_f1_by_row(one > 0, wanted > 0) - _f1_by_row(other > 0, wanted > 0)))
            continue
        if target.classes is not None:
            classes = target.decided(wanted)
            intervals.append(_of_matched_shares(one.argmax(dim=1) == classes, other.argmax(dim=1) == classes))
            continue
        spread = (wanted - wanted.mean()).square().mean().item()
        if spread > 0:
            low, high = mean_interval((other[:, 0] - wanted).square() - (one[:, 0] - wanted).square())
            intervals.append((low / spread, high / spread))
    if not intervals:
        return None
    return finite_interval(
        (sum(low for low, _ in intervals) / len(intervals), sum(high for _, high in intervals) / len(intervals))
    )


def score_interval(outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Interval | None:
    """Computes the 95% interval of a network's score: of several targets the mean of theirs; None where it has none."""
    compared, counts = compare_with_guess(outputs, labels, targets, only=only), labelled_counts(labels, targets, only=only)
    if not compared or len(compared) < sum(count > 0 for count in counts.values()):
        return None
    ends = zip(*(each.interval for each in compared), strict=True)
    low, high = (sum(each) / len(compared) for each in ends)
    return finite_interval((low, high))


def labelled_counts(labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> dict[str, int]:
    """Counts the labels (N,) or (N, M) that are not missing, by target."""
    return {
        target.name: int(known.sum())
        for target, known in zip(targets, targets.known(labels), strict=True)
        if only is None or target.name in only
    }


def num_labelled(labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> int:
    """Counts the samples that have a label (N,) or (N, M) of any target, or of any in ``only``."""
    known = targets.known(labels)
    scored = [each for target, each in zip(targets, known, strict=True) if only is None or target.name in only]
    return int(torch.stack(scored).any(dim=0).sum())


def _classes(name: str, outputs: Tensor, labels: Tensor) -> GuessComparison:
    right = outputs.argmax(dim=1) == labels
    share, count = right.double().mean().item(), len(labels)
    sizes = torch.bincount(labels.to(torch.int64))
    sizes = sizes[sizes > 0].double()
    recalls = torch.stack([right[labels == each].double().mean() for each in torch.unique(labels)])
    spread = (recalls * (1 - recalls) / sizes).sum().sqrt().item() / len(sizes)
    return ClassComparison(
        name,
        share,
        wilson_interval(share, count),
        constant=(sizes.max() / count).item(),
        rows=count,
        knows_small_classes=recalls.mean().item() - _NORMAL_95 * spread > 1 / len(sizes) + 1e-9,
    )


def _labels(name: str, chosen: Tensor, wanted: Tensor) -> GuessComparison:
    by_row = _f1_by_row(chosen, wanted)
    low, high = mean_interval(by_row)
    # Of sets of classes for all rows the best is one of the most frequent classes.
    sizes = wanted.sum(dim=0).double().sort(descending=True).values
    guessed = torch.arange(1, len(sizes) + 1) * len(wanted)
    constant = (2 * sizes.cumsum(dim=0) / (guessed + sizes.sum())).max().item()
    return LabelsComparison(name, by_row.mean().item(), (max(0.0, low), min(1.0, high)), constant, len(wanted))


def _f1_by_row(chosen: Tensor, wanted: Tensor) -> Tensor:
    """Values (N,) whose mean is the micro F1, and whose spread is its own in first order (the delta method of a ratio)."""
    right, given = f1_parts(chosen, wanted)
    if not bool(given.any()):
        return torch.zeros_like(right)
    score = right.sum() / given.sum()
    return score + (right - score * given) / given.mean()


def _number(name: str, outputs: Tensor, labels: Tensor) -> GuessComparison:
    labels = labels.to(torch.float64)
    constant = (labels - labels.mean()).square()
    spread = constant.mean().item()
    gains = constant - (outputs[:, 0] - labels).square()
    low, high = mean_interval(gains)
    return NumberComparison(name, gains.mean().item() / spread, (low / spread, high / spread), 0.0, len(labels))


def _of_matched_shares(first: Tensor, second: Tensor) -> Interval:
    """The 95% interval of the difference of two shares of the same rows (N,), bool (Agresti, Min, 2005: half a row more in each
    of the four cells)."""
    only_first, only_second = (first & ~second).sum().item() + 0.5, (second & ~first).sum().item() + 0.5
    count = len(first) + 2
    difference = (only_first - only_second) / count
    half = _NORMAL_95 * math.sqrt(only_first + only_second - (only_first - only_second) ** 2 / count) / count
    return difference - half, difference + half
