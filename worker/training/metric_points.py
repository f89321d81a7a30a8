"""Metric points, downsampled as they are recorded: each is the mean of a window of values, at most about 1,000 for a metric,
whatever a job's length.

Invariant: a mean is a sum in the order of the values, so a training that is resumed inside a window gives the same point.
"""

import math
from typing import Any

MAX_POINTS = 1_000


class WindowMean:
    """The means of consecutive windows of ``ceil(num_values / MAX_POINTS)`` values."""

    def __init__(self, num_values: int) -> None:
        self.size = max(1, math.ceil(num_values / MAX_POINTS))
        self.count = 0
        self.sum = 0.0

    def add(self, value: float) -> float | None:
        """Adds the next value. Returns the window's mean if this was its last value."""
        self.sum += value
        self.count += 1
        return self.close() if self.count == self.size else None

    def close(self) -> float | None:
        """Starts a new window. Returns the mean of the current one, None if it is empty."""
        if self.count == 0:
            return None
        mean = self.sum / self.count
        self.sum, self.count = 0.0, 0
        return mean

    def state(self) -> dict[str, Any]:
        return {"sum": self.sum, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.sum, self.count = state["sum"], state["count"]
