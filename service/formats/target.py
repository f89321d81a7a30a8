"""The targets of a dataset over all splits: counted chunk by chunk, described at the end."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.formats.chunk import Chunk

TargetArray = NDArray[np.int64] | NDArray[np.float64] | list[str] | list[NDArray[np.int64]]
"""(N,). Class indices, -1 if missing; numbers, NaN if missing; answers; or the class indices of a row's words, -1 if missing."""


@dataclass(frozen=True)
class Settled:
    """The description of a target, once all of its values are known."""

    missing_counts: dict[str, int]
    """Rows without a value, by split."""
    classes: list[str] | None = None
    """The class names of a label; none if no row has a value, whatever the type of the column."""
    counts: dict[str, list[int]] | None = None
    """Samples of each class, by split."""
    index_of_code: NDArray[np.int64] | None = None
    """Maps the codes that :meth:`TargetTally.add` returns for a label to class indices; the last entry maps -1 to -1."""


@dataclass
class TargetTally(ABC):
    """Counts the values of one target, and refuses invalid ones."""

    column: str
    missing_counts: Counter[str] = field(default_factory=Counter)
    """By split, of the splits that have rows without a value."""
    first_missing: str = ""
    """The place of the first row without a value."""
    first_minus_one: str = ""
    """The place of the first -1 beside class indices, which is a row without a value."""
    num_minus_ones: Counter[str] = field(default_factory=Counter)
    """By split."""
    num_present: Counter[str] = field(default_factory=Counter)
    """By split, including splits without any value."""

    @abstractmethod
    def empty(self, num_rows: int) -> TargetArray:
        """Allocates an array of that length."""

    @abstractmethod
    def add(self, chunk: Chunk) -> TargetArray:
        """Counts the values of a chunk and returns them (N,); for a label they are provisional codes.

        Raises:
            InvalidFile: a value is invalid; the text names its place.
        """

    @abstractmethod
    def settle(self) -> Settled:
        """Describes the target, after every row was added.

        Raises:
            InvalidFile: the target as a whole cannot be learned.
        """

    def _count(self, chunk: Chunk, is_missing: NDArray[np.bool_]) -> None:
        missing = int(np.count_nonzero(is_missing))
        if missing and not self.first_missing:
            self.first_missing = chunk.place(self.column, int(np.argmax(is_missing)))
        if missing:
            self.missing_counts[chunk.split] += missing
        self.num_present[chunk.split] += len(is_missing) - missing

    def _count_minus_ones(self, chunk: Chunk, is_minus_one: NDArray[np.bool_]) -> None:
        if count := int(np.count_nonzero(is_minus_one)):
            self.first_minus_one = self.first_minus_one or chunk.place(self.column, int(np.argmax(is_minus_one)))
            self.num_minus_ones[chunk.split] += count

    def _settle_without_values(self) -> Settled:
        return Settled(
            missing_counts=dict(self.missing_counts),
            classes=[],
            counts={split: [] for split in self.num_present},
            index_of_code=np.array([-1]),
        )
