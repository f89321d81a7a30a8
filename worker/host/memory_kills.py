"""How often the kernel has killed a process for want of memory: what tells such a death from a kill by anybody else."""

import time
from collections.abc import Callable
from pathlib import Path

_CGROUP = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_HOST = Path("/proc/vmstat")


_DYING_SECONDS = 10.0
"""In which a process ends that the kernel has killed, and so frees its memory."""


class MemoryKills:
    """Whether the kernel has just killed, as it has if a trainer dies of that: one killed minutes ago was another process."""

    def __init__(self, count: Callable[[], int | None] | None = None) -> None:
        self._count = count or count_memory_kills
        self._earlier = self._later = self._count()
        self._read_at = time.monotonic()

    def look(self) -> None:
        """Reads the counter now and then; to be called while the trainer lives."""
        if time.monotonic() - self._read_at > _DYING_SECONDS:
            self._earlier, self._later, self._read_at = self._later, self._count(), time.monotonic()

    @property
    def may_be_new(self) -> bool:
        """Whether it has killed in the last seconds, or does not tell."""
        now = self._count()
        return now is None or self._earlier is None or now > self._earlier


def count_memory_kills(cgroup: Path = _CGROUP, cgroup_root: Path = _CGROUP_ROOT, host: Path = _HOST) -> int | None:
    """Reads the counter of this process's control group, or without one (cgroup v2) that of the host; None if there is none.

    (Linux: Documentation/admin-guide/cgroup-v2.rst, memory.events; mm/vmstat.c.)
    """
    own = _read(cgroup).partition("0::/")[2].partition("\n")[0]
    for counters in (cgroup_root / own / "memory.events", host):
        for line in _read(counters).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
