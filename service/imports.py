"""Imports without the garbage collector, which takes as long as they do: it looks again and again at what is no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_collected() -> Iterator[None]:
    """What is imported in the block stays, so no collection looks at it, then or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
