"""The library without its progress bars, and without its report on what it has loaded."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silences the library's progress bar for each file, which is only noise in a job's log."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def no_load_report() -> Iterator[None]:
    """Silences the library's table of weights that are missing or left over, which whoever loads tells in words of its own."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
