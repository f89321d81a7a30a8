"""Writes to disk: what must outlive a crash of the machine is synced, and an error tells its number however it is told."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which writes files itself, tells the operating system's number: in its words alone."""
_NO_THREAD = "can't start new thread"


def sync(path: Path) -> None:
    """Flushes a file's bytes, or a folder's entries, to disk: a renamed file is safe only once its folder is synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def os_error_numbers(error: BaseException) -> Iterator[int]:
    """The operating system's numbers of an error, and then of those that it was raised from."""
    told: BaseException | None = error
    while told is not None:
        if isinstance(told, SafetensorError) and (words := _OS_ERROR.search(str(told))):
            yield int(words[1])
        elif isinstance(told, RuntimeError) and str(told) == _NO_THREAD:
            yield errno.EAGAIN
        elif isinstance(told, OSError) and told.errno is not None:
            yield told.errno
        told = told.__cause__
