"""Numbers of one column over all splits: a quantity to learn, or class indices that were written as floats.

pandas writes integers beside missing values as floats, so that 0.0, 1.0 and NaN are labels more often than quantities. Floats are
class indices if all of them are whole, they are few and small, and they repeat; anything else is a quantity. Beside class indices
-1 is a missing label, as it is among integers. The rule is the same
for every format, and the answer to an upload says which way it went.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import Chunk
from service.formats.targets.label import refuse_signs
from service.formats.targets.target import Settled, TargetTally

HIGHEST_FLOAT_CLASS = 31
"""Grades, digits, letters, months and hours stay below; ages, years, prices and percentages go beyond."""
LEAST_ROWS_A_CLASS = 2
"""On average: values that hardly ever repeat measure something."""


@dataclass
class NumberTally(TargetTally):
    """Counts the numbers of a target, and decides whether they are class indices."""

    is_only: bool = False
    """Whether there is no other target."""
    is_quantity: bool = False
    """Whether they are declared as a quantity."""
    all_whole: bool = True
    all_small: bool = True
    _counts: dict[str, Counter[int]] = field(default_factory=dict)
    """Rows of each number by split, as long as all are whole and small."""

    def empty(self, num_rows: int) -> NDArray[np.float64]:
        return np.empty(num_rows, dtype=np.float64)

    def add(self, chunk: Chunk) -> NDArray[np.float64]:
        numbers = np.asarray(chunk.targets[self.column], dtype=np.float64)
        self._count(chunk, np.isnan(numbers))
        if (beyond := np.abs(numbers) > np.finfo(np.float32).max).any():
            index = int(np.argmax(beyond))
            raise InvalidFile(
                f"{chunk.place(self.column, index)}: {numbers[index]} is infinite or beyond 32-bit floats; fill it with a number "
                "that is not, or drop the row"
            )
        present = numbers[~np.isnan(numbers)]
        self._count_minus_ones(chunk, numbers == -1)
        self.all_whole &= bool((present == np.trunc(present)).all())
        self.all_small &= bool(((present >= -1) & (present <= HIGHEST_FLOAT_CLASS)).all())
        counts = self._counts.setdefault(chunk.split, Counter())
        if self.all_whole and self.all_small:
            values, repeats = np.unique(present.astype(np.int64), return_counts=True)
            counts.update(dict(zip(values.tolist(), repeats.tolist(), strict=True)))
        return numbers

    def settle(self) -> Settled:
        if not self.num_present.total():
            return self._settle_without_values()
        if not self.are_class_indices:
            return Settled(missing_counts=dict(self.missing_counts))
        num_classes = 1 + max(max(counts) for counts in self._counts.values() if counts)
        if self.is_only and self.first_minus_one:
            refuse_signs(self, num_classes - 1)
        self.missing_counts += self.num_minus_ones
        self.num_present = Counter({split: count - self.num_minus_ones[split] for split, count in self.num_present.items()})
        if not self.first_missing:
            self._missing = self._minus_one
        counts = {split: [found[index] for index in range(num_classes)] for split, found in self._counts.items()}
        return Settled(
            missing_counts=dict(self.missing_counts), classes=[str(index) for index in range(num_classes)], counts=counts
        )

    @property
    def are_class_indices(self) -> bool:
        """Whether the numbers that were added are class indices."""
        if self.is_quantity or not (self.all_whole and self.all_small):
            return False
        different = {number for counts in self._counts.values() for number in counts} - {-1}
        num_labels = self.num_present.total() - self.num_minus_ones.total()
        return len(different) >= 2 and num_labels >= LEAST_ROWS_A_CLASS * len(different)


def as_indices(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Converts numbers (N,) that are class indices, -1 for NaN."""
    return np.where(np.isnan(numbers), -1, numbers).astype(np.int64)
