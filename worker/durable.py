"""Syncing a file or a folder to disk, for what must outlive a crash of the machine."""

import os
import re
from pathlib import Path

OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which writes files itself, tells the operating system's number: in its words alone."""


def sync(path: Path) -> None:
    """Flushes a file's bytes, or a folder's entries, to disk: a renamed file is safe only once its folder is synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
