"""Handling of Ctrl-C, SIGTERM and SIGHUP for commands that must stop the processes that they started.

While the handler is armed, the first signal raises KeyboardInterrupt. A signal during the shutdown only makes ``hurried()``
true, so that the shutdown itself is never interrupted.
"""

import signal
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handles the signals inside a ``with`` block and restores the earlier handlers after it."""

    def __init__(self) -> None:
        self._hurried = False
        self._armed = False

    def __enter__(self) -> Self:
        self._earlier = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """Lets the next signal raise KeyboardInterrupt."""
        self._armed = True

    def disarm(self) -> None:
        """Lets a signal only ask to hurry."""
        self._armed = False

    def hurried(self) -> bool:
        """Whether a signal came while the handler was not armed."""
        return self._hurried

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt
        self._hurried = True
