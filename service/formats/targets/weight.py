"""Weights of a dataset's rows: one column of numbers, 0 and more, with a value in every row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import Chunk
from service.formats.targets.target import Settled, TargetTally

_HOW = "a weight is a number, 0 or above; write 1 where there is none"


@dataclass
class WeightTally(TargetTally):
    """Refuses what is no weight. A column of integers comes as class indices do, with -1 where there is none."""

    def empty(self, num_rows: int) -> NDArray[np.float64]:
        return np.empty(num_rows, dtype=np.float64)

    def add(self, chunk: Chunk) -> NDArray[np.float64]:
        values = chunk.targets[self.column]
        if not isinstance(values, np.ndarray):
            raise InvalidFile(f"{chunk.place(self.column, 0)}: column {self.column!r} holds no numbers; {_HOW}")
        weights = np.asarray(values, dtype=np.float64)
        known = np.isfinite(weights) & (weights >= 0) & (weights <= np.finfo(np.float32).max)
        if not known.all():
            index = int(np.argmin(known))
            what = f"the weight is {weights[index]:g}" if values.dtype.kind == "f" else "the weight is missing or below 0"
            raise InvalidFile(f"{chunk.place(self.column, index)}: {what}; {_HOW}")
        self._count(chunk, np.zeros(len(weights), dtype=np.bool_))
        return weights

    def settle(self) -> Settled:
        return Settled(missing_counts={})
