"""Where the rows of a split stand in their file, so that a message about a row can name it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowPlaces:
    """The places of N rows of one split of a file."""

    split: str
    """The split's name in the file."""
    rows: NDArray[np.int64]
    """(N,): row numbers in the file, from 0."""
    lines: NDArray[np.int64] | None = None
    """(N,): in a text file, the lines on which the rows begin, from 1."""

    source: str = ""
    """The source that the file is of, as in the spec, where a split's rows come from several."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: NDArray[np.int64]) -> "RowPlaces":
        """The places of some of the rows."""
        return replace(self, rows=self.rows[rows], lines=None if self.lines is None else self.lines[rows])

    def describe(self, index: int) -> str:
        """Names one row, for messages: ``row 3 (line 5)``."""
        line = "" if self.lines is None else f" (line {self.lines[index]})"
        return f"row {self.rows[index]}{line}{self.source and f' of {self.source}'}"
