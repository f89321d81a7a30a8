"""The seconds of several ways to do one thing, which take turns, so that a busy moment of the machine falls on all of them."""

import statistics
import time
from collections.abc import Callable, Mapping


def median_seconds(contestants: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """The median time of each, by name, in their order; a first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_index in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if round_index > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
