"""Ctrl-C, SIGTERM and a closed terminal, for commands that must stop what they started.

The first request raises KeyboardInterrupt while the handler is armed; one that comes while things are being stopped only makes
``hurried()`` true, so that the stopping itself is never cut in half.
"""

import signal
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Takes the signals in a ``with`` block, and gives them back after it."""

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
        """From here on a request raises KeyboardInterrupt, once."""
        self._armed = True

    def disarm(self) -> None:
        """From here on a request means: hurry."""
        self._armed = False

    def hurried(self) -> bool:
        """Whether somebody asked while things were being stopped."""
        return self._hurried

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt
        self._hurried = True
