"""The targets of a dataset over all splits: counted chunk by chunk, described at the end."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.formats.chunk import Chunk
from service.spec.tasks import TargetKind

TargetArray = NDArray[np.int64] | NDArray[np.float64] | NDArray[np.float32] | list[str] | list[NDArray[np.int64]]
"""(N,). Class indices, -1 if missing; numbers, NaN if missing; answers; the class indices of a row's words, -1 if missing; or of
lists of labels (N, C), 0 and 1 or probabilities, NaN if missing."""


@dataclass(frozen=True)
class Settled:
    """The description of a target, once all of its values are known."""

    missing_counts: dict[str, int]
    """Rows without a value, by split."""
    classes: list[str] | None = None
    """The class names of a label; none if no row has a value, whatever the type of the column."""
    counts: dict[str, list[int]] | None = None
    """Samples of each class, by split."""
    kind: TargetKind | None = None
    """What the values are, where the column's type does not say it."""
    array: Callable[[Any], TargetArray] | None = None
    """Makes the values of a split of what :meth:`TargetTally.add` returned; None where they are that already, but for codes."""
    index_of_code: NDArray[np.int64] | None = None
    """Maps the codes that :meth:`TargetTally.add` returns for a label to class indices; the last entry maps -1 to -1."""


@dataclass
class TargetTally(ABC):
    """Counts the values of one target, and refuses invalid ones."""

    column: str
    missing_counts: Counter[str] = field(default_factory=Counter)
    """By split, of the splits that have rows without a value."""
    num_minus_ones: Counter[str] = field(default_factory=Counter)
    """By split."""
    num_present: Counter[str] = field(default_factory=Counter)
    """By split, including splits without any value."""
    _missing: "_FirstRow" = field(default_factory=lambda: _FirstRow())
    _minus_one: "_FirstRow" = field(default_factory=lambda: _FirstRow())

    @property
    def first_missing(self) -> str:
        """The place of the first row without a value."""
        return self._missing.place

    @property
    def first_minus_one(self) -> str:
        """The place of the first -1 beside class indices, which is a row without a value."""
        return self._minus_one.place

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
        if missing:
            self._missing.add(chunk, self.column, is_missing)
            self.missing_counts[chunk.split] += missing
        self.num_present[chunk.split] += len(is_missing) - missing

    def _count_minus_ones(self, chunk: Chunk, is_minus_one: NDArray[np.bool_]) -> None:
        if count := int(np.count_nonzero(is_minus_one)):
            self._minus_one.add(chunk, self.column, is_minus_one)
            self.num_minus_ones[chunk.split] += count

    def _settle_without_values(self) -> Settled:
        return Settled(
            missing_counts=dict(self.missing_counts),
            classes=[],
            counts={split: [] for split in self.num_present},
            index_of_code=np.array([-1]),
        )


@dataclass
class _FirstRow:
    """The place of the row with the lowest number in the file: shards hold the rows split by split, which may mix in the file."""

    place: str = ""
    _row: int = -1

    def add(self, chunk: Chunk, column: str, mask: NDArray[np.bool_]) -> None:
        """Adds the rows of a chunk where ``mask`` (N,) is set, of which there is one."""
        index = int(np.argmax(mask))
        if not self.place or chunk.rows[index] < self._row:
            self.place, self._row = chunk.place(column, index), int(chunk.rows[index])
