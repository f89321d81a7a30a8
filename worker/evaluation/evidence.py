"""What scores on few rows show, and what they do not: 95% intervals, and the score of a constant guess on the same rows.

A constant guess is always the largest class, the mean of the numbers, or the frequencies of the training split's tokens.
Invariant: an interval is as wide as its rows demand, so that few rows show little: a score is called *at chance* only where they
suffice to tell. N rows, M tokens, W outputs, V vocabulary.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.evaluation.token_metrics import PREDICTED
from worker.targets import Targets

_NEAR_CHANCE = 0.2
"""Share of the way from a constant guess to a perfect score below which a score that may be a guess's counts as one."""
_ENOUGH_NUMBERS = 20
"""Rows from which R² of 0 and less counts, however wide its interval: single large errors make that very wide."""
_BLOCKS = 100
"""Tokens of a text depend on each other: the spread is that of so many consecutive parts of all tokens."""
_FEWEST_BLOCKS = 5
_NORMAL_95 = 1.959963984540054

Interval = tuple[float, float]
"""The ends of a 95% interval; infinite where there are too few rows for one."""


@dataclass(frozen=True)
class Measured:
    """One target's score on some rows, and what a constant guess scores on them."""

    target: str
    score: float
    """Accuracy, R², or the negative loss of tokens."""
    interval: Interval
    constant: float
    """Score of a constant guess."""
    rows: int
    """Rows, or tokens, that the score is of."""
    kind: str
    """``classes``, ``number`` or ``tokens``."""
    knows_small_classes: bool = False
    """Whether the mean of the classes' recalls is above that of a guess: of unequal classes accuracy may hide what is known."""

    @property
    def is_better(self) -> bool:
        """Whether the score is shown to be better than a constant guess."""
        return self.interval[0] > self.constant or self.knows_small_classes

    @property
    def is_worse(self) -> bool:
        """Whether the score is shown to be worse than a constant guess."""
        return self.interval[1] < self.constant

    @property
    def is_at_chance(self) -> bool:
        """Whether the score is no better than a constant guess's, by the upper end of its interval."""
        if self.kind == "number" and self.score <= self.constant and self.rows >= _ENOUGH_NUMBERS:
            return True
        return not self.is_better and self.interval[1] <= self.constant

    @property
    def is_near_chance(self) -> bool:
        """Whether the score may be a constant guess's, and the rows suffice to say that it is not much better."""
        if self.is_at_chance:
            return True
        best = self.constant + (0.0 if self.kind == "tokens" else _NEAR_CHANCE * (1 - self.constant))
        return not self.is_better and self.interval[1] <= best

    def __str__(self) -> str:
        low, high = self.interval
        match self.kind:
            case "classes":
                return (
                    f"{self.score:.1%} of {self.rows:,} rows right (95% interval {low:.1%} to {high:.1%}), "
                    f"where always the largest class has {self.constant:.1%}"
                )
            case "number":
                return f"R² {self.score:.4g} on {self.rows:,} rows, where always the mean has 0"
        return f"a loss of {-self.score:.3f} on {self.rows:,} tokens, where their frequencies alone have {-self.constant:.3f}"


def measure(outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> list[Measured]:
    """Measures outputs (N, W) against labels (N,) or (N, M), by target.

    Left out are targets that ``only`` does not name, and those whose labels are missing or all the same.
    """
    outputs, labels = outputs.detach().cpu().to(torch.float64), labels.cpu()
    found = []
    for index, (target, part) in enumerate(zip(targets, targets.split(outputs), strict=True)):
        if only is not None and target.name not in only:
            continue
        wanted, known = targets.labels_of(labels, index), _known(labels, targets, index)
        part, wanted = part[known], wanted[known]
        if len(wanted) == 0 or bool((wanted == wanted[0]).all()):
            continue
        found.append(_classes(target.name, part, wanted) if target.classes is not None else _number(target.name, part, wanted))
    return found


def measure_tokens(outputs: Tensor, frequencies: Tensor) -> Measured:
    """Measures a language model's outputs (M, 3) beside the ``frequencies`` (V,) of the training split's tokens."""
    losses, true = outputs[:, 0].cpu().to(torch.float64), outputs[:, 2].cpu().to(torch.int64)
    constant = -frequencies.to(torch.float64).log()[true]
    low, high = _of_mean(_block_means(constant - losses))
    mean = constant.mean().item()
    return Measured(PREDICTED, -losses.mean().item(), (low - mean, high - mean), -mean, len(losses), "tokens")


def token_frequencies(ids: Tensor, vocabulary: int) -> Tensor:
    """Computes how frequent each token is among ``ids`` (M,), in (V,): each is counted once more, so that none is 0."""
    counts = torch.bincount(ids.cpu().flatten(), minlength=vocabulary).to(torch.float64) + 1
    return counts / counts.sum()


def wilson_interval(share: float, count: int) -> Interval:
    """Computes Wilson's 95% score interval of a share of ``count`` rows (Wilson, 1927; Brown, Cai, DasGupta, 2001)."""
    squared = _NORMAL_95**2
    centre = (share + squared / (2 * count)) / (1 + squared / count)
    half = _NORMAL_95 / (1 + squared / count) * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def paired_interval(first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
    """Computes the 95% interval of one network's score less another's, both (N, W) on the same rows; None where there is none.

    Of several targets it is the mean of their intervals, which is too wide rather than too narrow: rows are shared.
    """
    if targets.are_embeddings:
        return None
    if targets.are_tokens:
        if first.shape != second.shape or not torch.equal(first[:, 2], second[:, 2]):
            return None
        right = [(each[:, 1] == each[:, 2]).double().cpu() for each in (first, second)]
        return _finite(_of_mean(_block_means(right[0] - right[1])))
    intervals = []
    for index, (target, one, other) in enumerate(zip(targets, targets.split(first), targets.split(second), strict=True)):
        wanted = targets.labels_of(labels.to(first.device), index)
        known = _known(labels.to(first.device), targets, index)
        one, other, wanted = (each[known].cpu().to(torch.float64) for each in (one, other, wanted))
        if len(wanted) == 0:
            continue
        if target.classes is not None:
            intervals.append(_of_matched_shares(one.argmax(dim=1) == wanted, other.argmax(dim=1) == wanted))
            continue
        spread = (wanted - wanted.mean()).square().mean().item()
        if spread > 0:
            low, high = _of_mean((other[:, 0] - wanted).square() - (one[:, 0] - wanted).square())
            intervals.append((low / spread, high / spread))
    if not intervals:
        return None
    return _finite((sum(low for low, _ in intervals) / len(intervals), sum(high for _, high in intervals) / len(intervals)))


def score_interval(outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Interval | None:
    """Computes the 95% interval of a network's score: of several targets the mean of theirs; None where it has none."""
    if targets.are_tokens or targets.are_embeddings:
        return None
    measured, counts = measure(outputs, labels, targets, only=only), labelled_counts(labels, targets, only=only)
    if not measured or len(measured) < sum(count > 0 for count in counts.values()):
        return None
    ends = zip(*(each.interval for each in measured), strict=True)
    low, high = (sum(each) / len(measured) for each in ends)
    return _finite((low, high))


def labelled_counts(labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> dict[str, int]:
    """Counts the labels (N,) or (N, M) that are not missing, by target."""
    return {
        target.name: int(_known(labels, targets, index).sum())
        for index, target in enumerate(targets)
        if only is None or target.name in only
    }


def num_scored(outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> int:
    """Counts the samples that a score is of: those with a label of any target; of a language model the tokens."""
    if targets.are_tokens or targets.are_embeddings:
        return len(outputs)
    known = [_known(labels, targets, index) for index, target in enumerate(targets) if only is None or target.name in only]
    return int(torch.stack(known).any(dim=0).sum())


def _known(labels: Tensor, targets: Targets, index: int) -> Tensor:
    wanted = targets.labels_of(labels, index)
    return wanted >= 0 if targets.each[index].classes is not None else ~wanted.isnan()


def _classes(name: str, outputs: Tensor, labels: Tensor) -> Measured:
    right = outputs.argmax(dim=1) == labels
    share, count = right.double().mean().item(), len(labels)
    sizes = torch.bincount(labels.to(torch.int64))
    sizes = sizes[sizes > 0].double()
    recalls = torch.stack([right[labels == each].double().mean() for each in torch.unique(labels)])
    spread = (recalls * (1 - recalls) / sizes).sum().sqrt().item() / len(sizes)
    return Measured(
        name,
        share,
        wilson_interval(share, count),
        constant=(sizes.max() / count).item(),
        rows=count,
        kind="classes",
        knows_small_classes=recalls.mean().item() - _NORMAL_95 * spread > 1 / len(sizes) + 1e-9,
    )


def _number(name: str, outputs: Tensor, labels: Tensor) -> Measured:
    labels = labels.to(torch.float64)
    constant = (labels - labels.mean()).square()
    spread = constant.mean().item()
    gains = constant - (outputs[:, 0] - labels).square()
    low, high = _of_mean(gains)
    return Measured(name, gains.mean().item() / spread, (low / spread, high / spread), 0.0, len(labels), "number")


def _of_mean(values: Tensor) -> Interval:
    """The 95% interval of the mean of independent values (N,), by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return -math.inf, math.inf
    half = float(t.ppf(0.975, df=len(values) - 1)) * values.std(correction=1).item() / math.sqrt(len(values))
    mean = values.mean().item()
    return mean - half, mean + half


def _of_matched_shares(first: Tensor, second: Tensor) -> Interval:
    """The 95% interval of the difference of two shares of the same rows (N,), bool (Agresti, Min, 2005: half a row more in each
    of the four cells)."""
    only_first, only_second = (first & ~second).sum().item() + 0.5, (second & ~first).sum().item() + 0.5
    count = len(first) + 2
    difference = (only_first - only_second) / count
    half = _NORMAL_95 * math.sqrt(only_first + only_second - (only_first - only_second) ** 2 / count) / count
    return difference - half, difference + half


def _block_means(values: Tensor) -> Tensor:
    """Means of consecutive values (M,), in as many blocks as leave some values to each."""
    blocks = min(_BLOCKS, len(values) // _FEWEST_BLOCKS)
    return torch.stack([block.mean() for block in values.tensor_split(blocks)]) if blocks > 1 else values[:1]


def _finite(interval: Interval) -> Interval | None:
    return interval if all(map(math.isfinite, interval)) else None
