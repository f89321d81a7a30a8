"""Starts the processes of a stack again that ended by themselves, and gives up on one that ends again and again.

The keeper's thread outlives every process that it has started, until the keeper's block ends: on Linux a parent-death signal
follows the end of the thread that started the child.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from service.embedded.processes import Child, ChildDied

_LOOK_SECONDS = 0.2
_STEADY_SECONDS = 60.0
"""A process that ran so long has not ended again and again."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each start in a row; after as many the keeper gives up."""


@dataclass
class _Kept:
    child: Child
    start: Callable[[], None]
    started_at: float = field(default_factory=time.monotonic)
    due_at: float | None = None
    """When it is to be started again; None while it runs."""
    num_starts: int = 0
    """In a row, without a steady run between them."""


class Keeper:
    """Keeps processes running once it is begun; ``say`` is called with each end and each start."""

    def __init__(self, say: Callable[[str], None], *, pauses: Sequence[float] = PAUSES) -> None:
        self._say, self._pauses = say, pauses
        self._kept: list[_Kept] = []
        self._starting = threading.Lock()
        self._leaving, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self.failure: ChildDied | None = None
        """The end of the process that it gave up on."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called once, on the keeper's thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.leave()
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def keep(self, child: Child, start: Callable[[], None]) -> None:
        """Adds a running process; ``start`` starts it again in its place, and does not wait until it is ready."""
        self._kept.append(_Kept(child, start))

    def begin(self) -> None:
        """Begins to look after what was added."""
        self._thread.start()

    def leave(self) -> None:
        """Starts nothing more; the processes may be stopped now."""
        with self._starting:
            self._leaving.set()

    def _run(self) -> None:
        try:
            while self.failure is None and not self._leaving.wait(_LOOK_SECONDS):
                for kept in self._kept:
                    self._look(kept)
        except ChildDied as failure:
            self.failure = failure
            self.on_failure()
        self._over.wait()

    def _look(self, kept: _Kept) -> None:
        """Raises ChildDied to give up."""
        now = time.monotonic()
        if kept.due_at is None and kept.child.exit_code is not None:
            if now - kept.started_at > _STEADY_SECONDS:
                kept.num_starts = 0
            if kept.num_starts == len(self._pauses):
                raise kept.child.died(again_and_again=True)
            pause = self._pauses[kept.num_starts]
            kept.due_at = now + pause
            kept.num_starts += 1
            self._tell(f"{kept.child.ending}; starting it again{f' in {pause:g} s' if pause else ''}")
        if kept.due_at is not None and now >= kept.due_at:
            kept.started_at, kept.due_at = now, None
            with self._starting:
                if not self._leaving.is_set():
                    try:
                        kept.start()
                    except (ChildDied, OSError) as error:  # not started: it counts as one more that has ended
                        self._tell(f"{kept.child.name} did not start: {error}")

    def _tell(self, text: str) -> None:
        with suppress(OSError, SystemExit):  # a terminal that is gone, for which rich would end the program
            self._say(text)
