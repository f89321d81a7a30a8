"""Control groups of this machine that limit the memory of processes, of either version, where they can be made."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_ENDING_SECONDS = 10
"""In which the kernel forgets the last process of a group."""


class _Names(NamedTuple):
    root: Path
    controller: str
    """As the line of /proc/self/cgroup names it."""
    limits: Sequence[str]
    """The second one is that of memory and swap, or of swap alone."""
    used: str


_VERSIONS = (
    _Names(
        Path("/sys/fs/cgroup/memory"),
        "memory",
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        "memory.usage_in_bytes",
    ),
    _Names(Path("/sys/fs/cgroup"), "", ("memory.max", "memory.swap.max"), "memory.current"),
)


class ControlGroup:
    """A group of processes below this process's own."""

    def __init__(self, folder: Path, names: _Names) -> None:
        self._folder, self._names = folder, names

    @contextmanager
    def holding(self, pid: int) -> Iterator[None]:
        """Moves a process, which is to have no other children, into the group for the block; what it forks is born there."""
        _procs(self._folder).write_text(str(pid))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # it has ended
                _procs(self._folder.parent).write_text(str(pid))

    def limit(self, num_bytes: int) -> None:
        """Limits the memory of all its processes together; there is no swap for them."""
        memory, swap = (self._folder / name for name in self._names.limits)
        memory.write_text(str(num_bytes))
        if swap.exists():
            swap.write_text(str(num_bytes) if self._names.controller else "0")

    @property
    def own_bytes(self) -> int:
        """Its memory that is no file's: what the kernel cannot take back."""
        told = dict(line.split() for line in (self._folder / "memory.stat").read_text().splitlines())
        files = sum(int(told[name]) for name in ("active_file", "inactive_file"))
        return int((self._folder / self._names.used).read_text()) - files


@contextmanager
def control_group() -> Iterator[ControlGroup | None]:
    """A group that is removed at the end; None where none can be made: it takes root, and a mount that can be written."""
    for names in _VERSIONS:
        for line in Path("/proc/self/cgroup").read_text().splitlines() if Path("/proc/self/cgroup").exists() else []:
            _, controllers, path = line.split(":", 2)
            if names.controller not in controllers.split(","):
                continue
            folder = names.root / path.lstrip("/") / f"stillhouse-{uuid.uuid4().hex}"
            try:
                folder.mkdir()
            except OSError:
                continue
            try:
                if (folder / names.limits[0]).exists():
                    yield ControlGroup(folder, names)
                    return
            finally:
                _remove(folder)
    yield None


def _remove(folder: Path) -> None:
    give_up_at = time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def _procs(folder: Path) -> Path:
    return folder / "cgroup.procs"
