"""Waiting for something that must come, with words about what did not."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LOOK_SECONDS = 0.1


class NeverCame(AssertionError):
    """What had to happen did not."""


def until(look: Callable[[], T | None], what: str, *, timeout_seconds: float) -> T:
    """Returns what ``look`` answers once it answers something. Raises NeverCame."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise NeverCame(f"after {timeout_seconds:.0f} s: {what}")
        time.sleep(_LOOK_SECONDS)
