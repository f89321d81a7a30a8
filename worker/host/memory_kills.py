"""How often the kernel has killed a process for want of memory: what tells such a death from a kill by anybody else."""

import time
from collections.abc import Callable

from worker.host_memory import count_memory_kills

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
