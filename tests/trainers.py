"""Which processes of a worker train or check: those that its fork server forked, and that write to the log of a job.

A spare process, which the worker has forked ahead, writes to none.
"""

from contextlib import suppress
from pathlib import Path

import psutil

from worker.protocol import LOG_FILE


def trainers_of(worker_pid: int) -> list[psutil.Process]:
    """Those that run now; none if the worker has ended."""
    try:
        children = psutil.Process(worker_pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if any(Path(name).name == LOG_FILE for name in open_files(child))]


def open_files(process: psutil.Process) -> list[str]:
    """The paths of a process's open files; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return [file.path for file in process.open_files()]
    return []


def is_over(process: psutil.Process) -> bool:
    """Whether a process has ended, be it reaped or not, or at this very moment."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
