"""A trainer as a process: forked from a warm fork server, with one pipe to its worker, never outliving it.

On several devices it is one process, a rank, for each: rank 0 reports for all, and if one ends by an error all are killed.

A trainer ends with its worker by two means: the kernel kills it when the fork server is gone (Linux), and its own reader thread
exits when the pipe closes.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

from worker.host.fork_server import Forked, answer_seconds, fork, wait_for
from worker.protocol import (
    LOG_FILE,
    Assignment,
    Event,
    Failed,
    FinalEvent,
    StopRequest,
    decode_event,
    decode_stop,
    encode,
)

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_DIE = "1000"
_END_SECONDS = 60.0
CULPRIT_SECONDS = 10.0
"""Time in which the rank whose loss another reports is found dead; after it the reporting rank counts as the one that died."""
RANK_LOST = 75
"""Exit code of a rank that could not go on without another rank, whose error is the cause."""


def fork_spare(scratch: Path) -> Forked:
    """Forks a process that rehearses, with files under ``scratch``, and then waits for its part of an assignment."""
    return fork(_wait_for_part, scratch)


class TrainerProcess:
    """One running attempt: a process for each device. If a rank dies, all are killed; the error of the first one is reported.

    ``take_spare`` gives a process of :func:`fork_spare`, or None.
    """

    def __init__(self, assignment: Assignment, *, take_spare: Callable[[], Forked | None] = lambda: None) -> None:
        self._log_file = assignment.folder / LOG_FILE
        self._rendezvous = assignment.folder / f"rendezvous-{uuid.uuid4().hex}" if len(assignment.devices) > 1 else None
        parts = [(assignment, index, self._rendezvous) for index in range(len(assignment.devices))]
        self._ranks: list[_Rank] = []
        try:
            for part in parts:
                self._ranks.append(_Rank(part, spare=take_spare()))
        except BaseException:
            self.kill()
            raise
        self._first_dead: _Rank | None = None
        self._lost_since: float | None = None
        self._has_final_event = self._killed = self._ended = False

    @property
    def pids(self) -> list[int]:
        """The processes of its ranks, in their order."""
        return [rank.process.pid or 0 for rank in self._ranks]

    def events(self, *, timeout_seconds: float) -> Iterator[Event]:
        """The events that have arrived; waits at most ``timeout_seconds`` for the first. Empty once :attr:`ended`.

        Several ranks may fail by the same error: the first final event counts.
        """
        if self._ended:
            return
        pipes = [rank.pipe for rank in self._ranks if rank.is_open]
        sentinels = [rank.process.sentinel for rank in self._ranks if rank.process.exitcode is None]
        connection.wait([*pipes, *sentinels], timeout_seconds)
        for rank in [rank for rank in self._ranks if rank.is_open]:
            for event in rank.take():
                self._has_final_event = self._has_final_event or isinstance(event, FinalEvent)
                yield event
                if isinstance(event, Failed):
                    self._end_all_but(rank)
        self._end_all_if_one_is_dead()
        self._ended = not any(rank.is_open for rank in self._ranks)

    @property
    def ended(self) -> bool:
        """Whether the trainer has ended and its last event was read."""
        return self._ended

    def ask_to_stop(self, request: StopRequest) -> None:
        """Sends the request; no effect on a trainer that has ended, whose last event is still to be read."""
        with suppress(OSError):
            self._ranks[0].pipe.send_bytes(encode(request))

    def kill(self) -> None:
        """Kills the processes. Thread-safe and idempotent."""
        self._killed = True
        for rank in self._ranks:
            rank.process.kill()

    def exit_code(self) -> int:
        """Waits until the trainer has ended, within seconds after it closed its pipe; negative for the signal that killed it.

        Of several ranks the exit code of the one that died first.
        """
        deadline = time.monotonic() + _END_SECONDS
        for rank in self._ranks:
            wait_for(rank.process, seconds=deadline - time.monotonic())
        self._end_all_if_one_is_dead()
        self.kill()
        for rank in self._ranks:
            wait_for(rank.process)
            rank.pipe.close()
        if self._rendezvous is not None:
            self._rendezvous.unlink(missing_ok=True)
        return (self._first_dead or self._ranks[0]).process.exitcode or 0

    def _end_all_if_one_is_dead(self) -> None:
        if len(self._ranks) == 1 or self._first_dead is not None or self._has_final_event or self._killed:
            return
        dead = [rank for rank in self._ranks if rank.process.exitcode]
        # Ranks that only lost another wait for that one to be found; if none is, the report was mistaken.
        if dead and all(rank.process.exitcode == RANK_LOST for rank in dead):
            self._lost_since = self._lost_since or time.monotonic()
            if len(dead) < len(self._ranks) and time.monotonic() - self._lost_since < CULPRIT_SECONDS:
                return
        dead.sort(key=lambda rank: rank.process.exitcode == RANK_LOST)
        if not dead:
            return
        self._first_dead = dead[0]
        with self._log_file.open("a", encoding="utf-8") as log:
            log.write(f"[trainer] rank {dead[0].index} of {len(self._ranks)} ended with exit code {dead[0].process.exitcode}\n")
        self._end_all_but(self._first_dead)

    def _end_all_but(self, rank: "_Rank") -> None:
        for other in self._ranks:
            if other is not rank:
                other.process.kill()


class _Rank:
    """One process of a trainer, and the worker's end of its pipe."""

    def __init__(self, part: "_Part", *, spare: Forked | None) -> None:
        self.index, self.is_open = part[1], True
        forked = fork(_main, part) if spare is None or not _assign(spare, part) else spare
        self.process, self.pipe = forked.process, forked.pipe

    def take(self) -> Iterator[Event]:
        """The events that have arrived; clears ``is_open`` at the end of the pipe."""
        try:
            while self.pipe.poll():
                yield decode_event(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.is_open = False


class PipeReporter:
    """The trainer's side of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._request: StopRequest | None = None
        signal.signal(signal.SIGTERM, self._stop)
        threading.Thread(target=self._read, name="stop-reader", daemon=True).start()

    def emit(self, event: Event) -> None:
        self._pipe.send_bytes(encode(event))

    def stop_request(self) -> StopRequest | None:
        return self._request

    def _stop(self, *_: object) -> None:
        """As a stop of the whole service may signal every process of it, before its worker asks."""
        self._request = self._request or StopRequest("signal")

    def _read(self) -> None:
        try:
            while True:
                self._request = decode_stop(self._pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)  # the worker is gone: nobody would read the result


_Part = tuple[Assignment, int, Path | None]
"""What one process does of an assignment: it, the index of the rank, and the file by which several ranks find each other."""


def _assign(spare: Forked, part: _Part) -> bool:
    """Sends a spare process its part; False, and it is ended, if it has died or does not answer."""
    try:
        spare.pipe.send_bytes(b"")
        if spare.pipe.poll(answer_seconds()):
            spare.pipe.recv_bytes()
            spare.pipe.send(part)
            return True
    except (EOFError, OSError):
        pass
    spare.process.kill()
    spare.pipe.close()
    return False


def _wait_for_part(pipe: Connection, scratch: Path) -> None:
    """Runs a spare process."""
    _settle_in()
    from worker.preflight.rehearsal import rehearse

    rehearse(scratch)
    try:
        pipe.send_bytes(pipe.recv_bytes())
        part = pipe.recv()
    except (EOFError, OSError):
        os._exit(0)  # the worker is gone
    _main(pipe, part)


def _main(pipe: Connection, part: _Part) -> None:
    """Runs one rank."""
    assignment, index, rendezvous = part
    _settle_in()
    _redirect_output(assignment)
    from worker.job.attempt import RankLost, run_rank
    from worker.job.logs import log_to
    from worker.preflight import check, preview

    exit_code = 0
    with log_to(logging.StreamHandler(sys.stderr), rank=index):
        try:
            if assignment.preview is not None:
                preview(assignment, PipeReporter(pipe))
            elif assignment.check_only:
                check(assignment, PipeReporter(pipe))
            else:
                run_rank(assignment, PipeReporter(pipe), index=index, rendezvous=rendezvous)
        except RankLost as lost:
            logging.getLogger(__name__).warning("Without the other ranks this one cannot go on: %s", lost.__cause__)
            exit_code = RANK_LOST
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # no exit handlers: those of imported libraries may wait for threads


def _settle_in() -> None:
    """Makes this process end with the others, and before any server; may be repeated."""
    _exit_with_parent()
    _be_first_oom_victim()
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker handles them, until a trainer reads what it is asked for
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # blocked in a fork server that a worker's thread started anew


def _exit_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _be_first_oom_victim() -> None:
    """Makes the kernel's OOM killer choose this process, whose job resumes from a checkpoint, before any server."""
    with suppress(OSError):
        _OOM_SCORE.write_text(_FIRST_TO_DIE)


def _redirect_output(assignment: Assignment) -> None:
    """Redirects by descriptor, so that output of native code before a crash is logged too."""
    log = os.open(assignment.folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
