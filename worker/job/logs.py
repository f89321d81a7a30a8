"""The log of a trainer: every logger under ``worker``, written to a file or to the standard error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_to(handler: logging.Handler, *, rank: int = 0) -> Iterator[None]:
    """Sends the trainer's log to ``handler``, from INFO on, and closes it at the end.

    Ranks other than 0 log from WARNING on: they all do the same work.
    """
    log = logging.getLogger("worker")
    named = f"rank {rank}: " if rank else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {named}%(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING if rank else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
