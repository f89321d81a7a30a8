"""Starts trainers, and follows each from its start to its end.

An :class:`Executor` decides what a trainer is: processes of this host here, of several hosts in another one. Invariant of
:func:`follow`: when it returns or raises, nothing of the trainer runs any more.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from worker.host.spares import Spares
from worker.host.trainer_process import TrainerProcess, fork_spare
from worker.protocol import LOCALHOST, Assignment, Event, FinalEvent, StopRequest

_POLL_SECONDS = 0.2


class Trainer(Protocol):
    """One running attempt, or one running check."""

    @property
    def pids(self) -> Sequence[int]:
        """The processes of its ranks, in their order."""

    @property
    def ended(self) -> bool:
        """Whether it has ended and its last event was read."""

    def events(self, *, timeout_seconds: float) -> Iterable[Event]:
        """The events that have arrived; waits at most ``timeout_seconds`` for the first."""

    def ask_to_stop(self, request: StopRequest) -> None:
        """Sends the request; no effect on a trainer that has ended."""

    def kill(self) -> None:
        """Ends it at once. Thread-safe and idempotent."""

    def exit_code(self) -> int:
        """Waits until it has ended and frees what it held; negative for the signal that killed it."""


class Executor(Protocol):
    """Runs trainers where their placement says."""

    def start(self, assignment: Assignment) -> Trainer:
        """Starts a trainer.

        Raises:
            UnsupportedPlacement: this executor does not reach one of its hosts.
        """


class UnsupportedPlacement(Exception):
    """An attempt is to run where its executor runs none."""


class LocalExecutor:
    """Runs trainers on this host alone, whose name is ``host``, as processes of its fork server, ``num_spares`` forked ahead.

    ``scratch`` is for files of the spare ones.
    """

    def __init__(self, host: str = LOCALHOST, *, num_spares: int = 0, scratch: Path = Path()) -> None:
        self.host = host
        self._spares = Spares(partial(fork_spare, scratch), count=num_spares)

    def prepare(self) -> None:
        """Has the spare processes forked, on a thread; until they are there trainers take longer to start."""

        def fill() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # they are the main thread's
            self._spares.fill()

        threading.Thread(target=fill, name="spares", daemon=True).start()

    def close(self) -> None:
        """Ends the spare processes."""
        self._spares.close()

    def start(self, assignment: Assignment) -> TrainerProcess:
        others = [place.host for place in assignment.placement if place.host not in {self.host, LOCALHOST}]
        if others:
            raise UnsupportedPlacement(
                f"{assignment.job_id} is placed on {', '.join(others)}; trainers run on one host, here on {self.host}"
            )
        return TrainerProcess(assignment, take_spare=self._spares.take)


@dataclass(frozen=True)
class Ending:
    """How a trainer ended."""

    last: FinalEvent | None
    """None if it ended without a result."""
    asked: StopRequest | None
    """The stop that it was asked for last."""
    killed: bool
    """Whether it was killed, as it did not stop in time."""
    exit_code: int


def follow(
    trainer: Trainer,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    on_poll: Callable[[], None] = lambda: None,
    wanted_stop: Callable[[], StopRequest | None] = lambda: None,
    grace_seconds: float = math.inf,
) -> Ending:
    """Follows a trainer to its end.

    Args:
        on_event: gets every event up to the last; later ones, as of ranks that fail by the same error, are dropped.
        on_poll: called several times a second, after the events that have arrived.
        wanted_stop: the stop that the trainer is to make, if any. It is requested once; a cancel overrides an earlier request.
        grace_seconds: after this time a trainer that was asked to stop is killed.

    Raises:
        BaseException: whatever one of the callables raises; the trainer is killed first.
    """
    last: FinalEvent | None = None
    asked: StopRequest | None = None
    kill_at = math.inf
    killed = False
    try:
        while not trainer.ended:
            for event in trainer.events(timeout_seconds=_POLL_SECONDS):
                if last is not None:
                    continue
                if isinstance(event, FinalEvent):
                    last = event
                on_event(event)
            on_poll()
            wanted = wanted_stop()
            if wanted is not None and (asked is None or (wanted.reason == "cancel" and asked.reason != "cancel")):
                trainer.ask_to_stop(wanted)
                asked, kill_at = wanted, time.monotonic() + grace_seconds
            if time.monotonic() > kill_at and not killed:
                trainer.kill()
                killed = True
    except BaseException:
        trainer.kill()
        raise
    finally:
        exit_code = trainer.exit_code()  # reaped: from here on its pids may be reused
    return Ending(last, asked, killed, exit_code)
