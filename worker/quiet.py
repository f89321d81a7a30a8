"""Libraries without what they log of kernels, opsets and progress that a job has no use for."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*libraries: str, below: int = logging.ERROR) -> Iterator[None]:
    """Silences the loggers of these names below a level."""
    loggers = [logging.getLogger(name) for name in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(below)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
