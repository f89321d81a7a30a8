"""The processes of the service, each started again when it dies, as systemd or Compose does for an operator."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from service.embedded.processes import Child

_LOOK_SECONDS = 0.1
_RESTART_SECONDS = 0.3
_STOP_SECONDS = 40.0


class Part:
    """One program that is to run; ``start`` starts a process of it, which gets the number of its life.

    Everything that starts a process is on one thread of its own: a child gets its parent-death signal when the thread that
    started it ends.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        user: str = "",
        stop_signal: signal.Signals = signal.SIGTERM,
        starts: Callable[[], bytes] = bytes,
    ) -> None:
        """``starts`` is called before each start and returns the standard input."""
        self.name, self.log, self.lives = name, log, 0
        self.environment = dict(environment)
        self._argv, self._user, self._stop_signal, self._starts = argv, user, stop_signal, starts
        self._child: Child | None = None
        self._wanted, self._ending = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name=f"supervisor of {name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        child = self._child
        return child.pid if child is not None and child.exit_code is None else None

    def start(self) -> None:
        """Wants it to run from now on."""
        self._wanted.set()
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stops it, as an operator does, for good."""
        self._wanted.clear()
        with self._lock:
            if self._child is not None:
                self._child.stop(grace_seconds=_STOP_SECONDS)
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def kept_down(self) -> Iterator[None]:
        """Nobody starts it again inside the block."""
        self._wanted.clear()
        with self._lock:
            pass
        try:
            yield
        finally:
            self._wanted.set()

    def kill(self) -> None:
        """SIGKILL. Its supervisor starts it again."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def frozen(self, *, with_children: bool = False) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        pid = self.pid
        pids = [] if pid is None else [pid, *([child.pid for child in descendants(pid)] if with_children else [])]
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)

    def _supervise(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            with self._lock:
                if self._wanted.is_set() and self.pid is None:
                    if self.lives:
                        self._ending.wait(_RESTART_SECONDS)
                    self.lives += 1
                    self._child = Child(
                        self.name,
                        self._argv,
                        log=self.log,
                        env=self.environment | {"PGAPPNAME": f"{self.name} {self.lives}"},
                        user=self._user,
                        stop_signal=self._stop_signal,
                    )
                    self._child.start(stdin=self._starts())

    def tail(self) -> str:
        """The end of its log."""
        return self._child.log_tail(num_lines=40) if self._child is not None else ""


def descendants(pid: int) -> list[psutil.Process]:
    """The processes below one, which may be ending."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
