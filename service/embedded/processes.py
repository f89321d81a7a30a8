"""Child processes that end with this process: start, wait until ready, stop within a time limit, read the end of the log.

A child leads its own session: a Ctrl-C in the terminal reaches only this process, which stops the children in order.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PARENT_DEATH = Path(__file__).with_name("parent_death.py")
_MAX_LOG_BYTES = 16 * 2**20
_POLL_SECONDS = 0.02


class ChildDied(RuntimeError):
    """A child ended by itself or was not ready in time. The message contains the end of its log."""


class Child:
    """One child process. ``stop_signal`` asks it to end; the kernel sends it ``death_signal`` when this process has ended.

    It has the ``inherited`` files open too, by the same numbers.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: str = "",
        inherited: Sequence[int] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
        kill_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._env = dict(env) if env is not None else None
        self._user = user
        self._inherited = inherited
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._kill_signal = kill_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, also after the process has ended."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs and before it was started."""
        return None if self._process is None else self._process.poll()

    def start(self, *, stdin: bytes = b"") -> None:
        """Starts the child, with ``stdin`` (a few KiB at most) as its whole input. It can be started again once it has ended."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"{self.name} is running already")
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(self.log.suffix + ".1"))
        wrapper = [sys.executable, "-I", "-S", str(_PARENT_DEATH), str(int(self._death_signal)), str(os.getpid()), self._user]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [*wrapper, *self._argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                pass_fds=self._inherited,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(stdin)
            self._process.stdin.close()
        except BrokenPipeError:
            raise self.died() from None

    def wait_until(self, ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Waits until ``ready()`` is true.

        Raises:
            ChildDied: the child ended, or the time is up.
        """
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if self.exit_code is not None:
                raise self.died()
            if time.monotonic() > deadline:
                raise ChildDied(
                    f"{self.name} was not ready after {timeout_seconds:.0f} s. The end of {self.log}:\n{self.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self, *, grace_seconds: float, hurried: Callable[[], bool] = lambda: False) -> None:
        """Asks the child to end, and kills it when the time is up or ``hurried()`` is true. Does nothing if it has ended."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(self._stop_signal)
        deadline = time.monotonic() + grace_seconds
        while process.poll() is None and time.monotonic() < deadline and not hurried():
            time.sleep(_POLL_SECONDS)
        if process.poll() is None:
            process.send_signal(self._kill_signal)
            process.wait()

    def died(self, *, again_and_again: bool = False) -> ChildDied:
        """Creates the error for a child that ended by itself."""
        often = ", and again each time it was started anew" if again_and_again else ""
        return ChildDied(f"{self.ending}{often}. The end of {self.log}:\n{self.log_tail()}")

    @property
    def ending(self) -> str:
        """How it ended, in words; waits until it has."""
        process = self._process
        code = process.wait() if process is not None else None
        how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return f"{self.name} ended {how}"

    def log_tail(self, *, num_lines: int = 20) -> str:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16_384))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return "(nothing)"
        return "\n".join(f"  {line}" for line in lines[-num_lines:]) or "  (nothing)"
