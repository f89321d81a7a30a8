"""The bootstrap over rows: 95% intervals of every figure that is a function of sums over them. N rows, K groups, R draws, D sums.

Rows that depend on each other, as the words of one sentence, are drawn together (the cluster bootstrap; Davison, Hinkley, 1997,
section 3.8). Of many rows, groups of some rows chosen at random are drawn instead of single ones: the spread of a sum of N
independent rows is the same, and K stays small. Invariant: memory is bounded by R · K and K · D, whatever N is, and the same rows
give the same interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Interval = tuple[float, float]

_DRAWS = 1_000
_MOST_GROUPS = 1_000
_ENDS = (2.5, 97.5)


class Groups:
    """The groups in which rows are drawn, with the sums of values over each."""

    def __init__(self, num_rows: int, *, lengths: Sequence[int] | None = None, blocks: int | None = None) -> None:
        """``lengths``: how many rows after each other belong together, all of them rows of these; else each stands alone.

        Rows that depend on their neighbours, as the tokens of a text, are drawn in so many ``blocks`` of consecutive ones.
        """
        unit = np.arange(num_rows) if lengths is None else np.repeat(np.arange(len(lengths)), lengths)
        num_units = num_rows if lengths is None else len(lengths)
        self.count = min(num_units, _MOST_GROUPS if blocks is None else blocks)
        order = np.random.default_rng(0).permutation(num_units) if blocks is None else np.arange(num_units)
        self._of_row = (order * self.count // max(1, num_units))[unit]

    def sums(self, *columns: NDArray[Any]) -> Numbers:
        """Sums values (N,) over each group: (K, D)."""
        each = [
            np.bincount(self._of_row, weights=np.asarray(column, dtype=np.float64), minlength=self.count) for column in columns
        ]
        return np.stack(each, axis=1)

    def class_counts(self, classes: NDArray[np.int64], num_classes: int, counted: NDArray[np.bool_] | None = None) -> Numbers:
        """Counts the rows of each class (N,) in each group, of those that are ``counted`` (N,): (K, C)."""
        places = self._of_row * num_classes + classes
        chosen = places if counted is None else places[counted]
        return np.bincount(chosen, minlength=self.count * num_classes).reshape(self.count, num_classes).astype(np.float64)


def draws(count: int) -> Numbers:
    """How often each of ``count`` groups is drawn when as many are drawn with replacement: (R, K)."""
    drawn = np.random.default_rng(1).integers(0, count, size=(_DRAWS, count)) + count * np.arange(_DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=_DRAWS * count).reshape(_DRAWS, count).astype(np.float64)


def interval_of(values: Numbers) -> Interval | None:
    """The 95% interval of a figure by its values over all draws (R,); None if it is not finite in some."""
    if not bool(np.isfinite(values).all()):
        return None
    low, high = np.percentile(values, _ENDS)
    return float(low), float(high)


def intervals_of(values: Mapping[str, Numbers], groups: Groups) -> dict[str, Interval]:
    """The 95% intervals of figures by their values over all draws (R,); of a single group, which has no spread, none."""
    if groups.count < 2:
        return {}
    each = ((name, interval_of(of_draws)) for name, of_draws in values.items())
    return {name: found for name, found in each if found is not None}


def ratio(numerators: Numbers, denominators: Numbers) -> Numbers:
    """The quotients of two arrays of the same shape; 0 where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0)


def correlation(moments: Numbers) -> Numbers:
    """Correlations by the sums of (1, x, y, x², y², xy) over rows, (R, 6); 0 where a side is constant."""
    count, x, y, xx, yy, xy = moments.T
    spread = (xx - x * x / count) * (yy - y * y / count)
    return ratio(xy - x * y / count, np.sqrt(np.clip(spread, 0, None)))
