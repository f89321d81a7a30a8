"""The worker's folder for files of running jobs, removed when the worker ends; that of a killed worker at the next start."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "stillhouse-"
_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: Path, worker_id: str) -> Iterator[Path]:
    """A new folder under ``parent``, locked; the kernel releases the lock however this process ends."""
    _remove_abandoned(parent)
    folder = parent / f"{_PREFIX}{worker_id}"
    folder.mkdir(parents=True)
    unheld = folder / f"{_LOCK}.new"
    with unheld.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unheld.rename(folder / _LOCK)  # the lock file never exists unlocked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with path.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:
            continue  # its worker lives, or another start was faster
