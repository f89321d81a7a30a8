"""Processes that are forked before there is an assignment for them, and have rehearsed what a first step needs.

A trainer begins with one so in the time of a message, not in that of a fork and of everything that torch does only once.
"""

import logging
import threading
from collections.abc import Callable

from service.part_errors import log_failure
from worker.host.fork_server import Forked, wait_for

logger = logging.getLogger(__name__)

_REFILL_SECONDS = 1.0
"""After one is taken: the job that takes it needs the cores first."""


class Spares:
    """``count`` processes that ``fork`` makes; thread-safe. Who takes one waits for no fork."""

    def __init__(self, fork: Callable[[], Forked], *, count: int) -> None:
        self._fork, self._count = fork, count
        self._idle: list[Forked] = []
        self._filling, self._lock = threading.Lock(), threading.Lock()
        self._refill: threading.Timer | None = None

    def take(self) -> Forked | None:
        """Gives one away, which another will replace; None if there is none that lives."""
        with self._lock:
            if self._count and self._refill is None:
                self._refill = threading.Timer(_REFILL_SECONDS, self.fill)
                self._refill.daemon = True
                self._refill.start()
            while self._idle:
                spare = self._idle.pop(0)
                if spare.process.is_alive():
                    return spare
                spare.pipe.close()
        return None

    def fill(self) -> None:
        """Forks as many as are missing."""
        with self._filling:
            with self._lock:
                self._refill = None
            try:
                while self._misses_one():
                    self._keep(self._fork())
            except Exception as error:  # noqa: BLE001 - without one a process is forked when it is needed
                log_failure(logger, "no spare process", error)

    def close(self) -> None:
        """Ends those that nobody took; no other replaces them."""
        with self._lock:
            self._count = 0
            if self._refill is not None:
                self._refill.cancel()
        with self._filling:
            left, self._idle = self._idle, []
        for spare in left:
            spare.process.kill()
        for spare in left:
            wait_for(spare.process)
            spare.pipe.close()

    def _misses_one(self) -> bool:
        with self._lock:
            return len(self._idle) < self._count

    def _keep(self, spare: Forked) -> None:
        with self._lock:
            self._idle.append(spare)
