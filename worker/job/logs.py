"""What a trainer writes down of its work: the log of everything under ``worker``, in a file or on the standard error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_to(handler: logging.Handler, *, rank: int = 0) -> Iterator[None]:
    """Sends the trainer's log to ``handler``, from INFO on; closes it at the end.

    Of any rank but the first only what is amiss: they all do the same.
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
