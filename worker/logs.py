"""What a trainer writes down of its work: the log of everything under ``worker``, in a file or on the standard error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_to(handler: logging.Handler) -> Iterator[None]:
    """Sends the trainer's log to ``handler``, from INFO on; closes it at the end."""
    log = logging.getLogger("worker")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
