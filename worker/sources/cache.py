"""What this host has fetched, networks or data, kept on disk for later jobs up to a size, the least recently used removed first.

    FOLDER/NAME         an entry: the files of one network at one revision, or of one dataset, complete, renamed into place and
                        never changed
    FOLDER/NAME.part    one that is being fetched; what a fetch left that was broken off goes on there
    FOLDER/NAME.lock    its lock, whose time is that of the last use

Who reads an entry holds its lock together with others; who fetches or removes it holds the lock alone. The kernel releases a
lock however its holder ends, so nothing that is in use is removed and nothing stays locked. NAME is a digest of the entry's key.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.error_numbers import FULL_NUMBERS
from worker.durable import os_error_numbers, sync

_LOCK, _PART = ".lock", ".part"
_POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


class NetworkCache:
    """The cache in one folder, for any number of processes of one host."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    @contextmanager
    def hold(
        self, key: str, fetch: Callable[[Path], None], *, num_bytes: int = 0, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator[Path]:
        """Yields the folder of an entry, which stays until the block ends; it is for reading alone.

        Args:
            key: what it is, at which revision.
            fetch: writes its files into a folder, which may have some of an earlier try; called by one process at a time, and
                only if there is no entry.
            num_bytes: its size as far as it is known, for which room is made first.
            on_wait: called several times a second while another process fetches it; what it raises ends the wait.

        Raises:
            OSError: this host has no room for it, for instance.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        entry, lock = self.folder / name, self.folder / f"{name}{_LOCK}"
        while True:
            with _locked(lock, fcntl.LOCK_SH) as descriptor:
                if descriptor is not None and entry.is_dir():
                    os.utime(descriptor)
                    yield entry
                    break
            with _locked(lock, fcntl.LOCK_EX) as descriptor:
                if descriptor is None:
                    on_wait()
                    time.sleep(_POLL_SECONDS)
                elif not entry.is_dir():
                    self._fetch(entry, fetch, num_bytes)
        self._trim(self.max_bytes)

    def _fetch(self, entry: Path, fetch: Callable[[Path], None], num_bytes: int) -> None:
        part = entry.with_name(entry.name + _PART)
        self._trim(self.max_bytes - (num_bytes if num_bytes <= self.max_bytes else 0))
        for is_last in (False, True):
            part.mkdir(exist_ok=True)
            try:
                fetch(part)
                break
            except Exception as error:
                if is_last or not _is_of_full_disk(error):
                    raise
                self._trim(0)  # another program has taken the room
        for path in [*part.rglob("*"), part]:
            sync(path)
        part.rename(entry)
        sync(self.folder)
        self._trim(self.max_bytes)

    def _trim(self, most_bytes: int) -> None:
        """Removes entries that nobody holds until no more than ``most_bytes`` are left.

        The least recently used go first. One that is larger than the whole cache goes at once, and is not counted while it is
        held: others would go in vain.
        """
        found = [(_used_at(lock), _num_bytes(lock), lock) for lock in self.folder.glob(f"*{_LOCK}")]
        total = sum(size for _, size, _ in found if size <= self.max_bytes)
        for _, size, lock in sorted(found):
            is_counted = size <= self.max_bytes
            if (not is_counted or total > most_bytes) and _remove(lock):
                total -= size if is_counted else 0
                logger.info("removed %d bytes from the cache, which may have %d", size, self.max_bytes)


def _is_of_full_disk(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, tells of a disk that takes no file."""
    return any(number in FULL_NUMBERS for number in os_error_numbers(error))


def _remove(lock: Path) -> bool:
    """Removes an entry unless somebody holds it."""
    with _locked(lock, fcntl.LOCK_EX) as descriptor:
        if descriptor is None:
            return False
        entry, part = _folders(lock)
        shutil.rmtree(part, ignore_errors=True)
        if entry.exists():
            entry.rename(part)  # an entry is never there in part
            shutil.rmtree(part, ignore_errors=True)
        lock.unlink(missing_ok=True)
    return True


@contextmanager
def _locked(lock: Path, kind: int) -> Iterator[int | None]:
    """Holds the lock in the block; None if another holder does not allow it at this moment."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            is_current = os.fstat(descriptor).st_ino == lock.stat().st_ino  # or else it was removed with its entry just now
        except (BlockingIOError, FileNotFoundError):
            is_current = False
        yield descriptor if is_current else None
    finally:
        os.close(descriptor)


def _folders(lock: Path) -> tuple[Path, Path]:
    """The entry, and what there is of it while it is fetched or removed."""
    entry = lock.with_name(lock.name.removesuffix(_LOCK))
    return entry, entry.with_name(entry.name + _PART)


def _used_at(lock: Path) -> float:
    """When an entry was used last; 0 if it was removed."""
    try:
        return lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _num_bytes(lock: Path) -> int:
    total = 0
    for folder in _folders(lock):
        for parent, _, names in os.walk(folder):  # which leaves out folders that are being removed
            for name in names:
                with suppress(FileNotFoundError):  # so is the file
                    total += Path(parent, name).lstat().st_size
    return total
