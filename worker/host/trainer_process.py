"""A trainer as a process: forked from a warm fork server, talked to over one pipe, ended with its worker whatever happens.

On several devices it is a process for each, a rank: the first speaks for all, and whatever ends one of them ends all.

The fork server has imported torch and run no operation. A trainer dies with its worker in two ways: the kernel kills it when
the fork server is gone (Linux), and its own reader ends it when the pipe closes.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from worker.host.openmp import let_idle_threads_sleep
from worker.protocol import (
    LOG_FILE,
    Assignment,
    Event,
    Failed,
    Finished,
    Stopped,
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
"""A rank that says that it lost another is believed for so long: then it counts as the one that died."""
RANK_LOST = 75
"""Exit code of a rank that could not go on without another, which is the one to ask about."""
_context = multiprocessing.get_context("forkserver")


def warm_up() -> None:
    """Starts the fork server and returns once it has imported everything that trainers need."""
    let_idle_threads_sleep()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's order, by which the devices were found
    _context.set_forkserver_preload(["worker.preload"])
    forkserver.ensure_running()
    first = _context.Process(target=_nothing, daemon=True)
    first.start()
    first.join()


class TrainerProcess:
    """One running attempt: a process, or one a rank where it has several devices. When a rank dies or fails, all end at once."""

    def __init__(self, assignment: Assignment) -> None:
        self._log_file = assignment.folder / LOG_FILE
        self._rendezvous = assignment.folder / f"rendezvous-{uuid.uuid4().hex}" if len(assignment.devices) > 1 else None
        self._ranks = [_Rank(assignment, index, rendezvous=self._rendezvous) for index in range(len(assignment.devices))]
        self._first_dead: _Rank | None = None
        self._lost_since: float | None = None
        self._has_last_word = self._killed = self._ended = False

    @property
    def pid(self) -> int:
        """The first rank's id on this host."""
        return self._ranks[0].process.pid or 0

    @property
    def pids(self) -> list[int]:
        """Of all ranks."""
        return [rank.process.pid or 0 for rank in self._ranks]

    def events(self, *, timeout_seconds: float) -> Iterator[Event]:
        """What has arrived, after waiting at most so long for the first; nothing more once :attr:`ended`."""
        if self._ended:
            return
        pipes = [rank.pipe for rank in self._ranks if rank.is_heard]
        sentinels = [rank.process.sentinel for rank in self._ranks if rank.process.exitcode is None]
        connection.wait([*pipes, *sentinels], timeout_seconds)
        for rank in [rank for rank in self._ranks if rank.is_heard]:
            for event in rank.take():
                # Several ranks may fail of the same: the first who says so has said it.
                if not self._has_last_word:
                    self._has_last_word = isinstance(event, Finished | Stopped | Failed)
                    yield event
                if isinstance(event, Failed):
                    self._end_all_but(rank)
        self._end_all_if_one_is_dead()
        self._ended = not any(rank.is_heard for rank in self._ranks)

    @property
    def ended(self) -> bool:
        """Whether the trainer is gone and its last event was read."""
        return self._ended

    def ask_to_stop(self, request: StopRequest) -> None:
        """Sends the request; a trainer that is gone already needs none: what it said last is still to be read."""
        with suppress(OSError):
            self._ranks[0].pipe.send_bytes(encode(request))

    def kill(self) -> None:
        """Ends the processes at once. Safe from any thread, and to repeat."""
        self._killed = True
        for rank in self._ranks:
            rank.process.kill()

    def exit_code(self) -> int:
        """Waits for the end, which one that has closed its pipe is seconds from; negative for the signal that ended it.

        Of several ranks it is that of the one that died first.
        """
        deadline = time.monotonic() + _END_SECONDS
        for rank in self._ranks:
            rank.process.join(max(0.0, deadline - time.monotonic()))
        self._end_all_if_one_is_dead()
        self.kill()
        for rank in self._ranks:
            rank.process.join()
            rank.pipe.close()
        if self._rendezvous is not None:
            self._rendezvous.unlink(missing_ok=True)
        return (self._first_dead or self._ranks[0]).process.exitcode or 0

    def _end_all_if_one_is_dead(self) -> None:
        if len(self._ranks) == 1 or self._first_dead is not None or self._has_last_word or self._killed:
            return
        dead = [rank for rank in self._ranks if rank.process.exitcode]
        # Those that only lost another are not told of before that one is; but no other may be gone, where one was mistaken.
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
    """One of a trainer's processes, and our end of its pipe."""

    def __init__(self, assignment: Assignment, index: int, *, rendezvous: Path | None) -> None:
        self.index, self.is_heard = index, True
        self.pipe, theirs = _context.Pipe(duplex=True)
        self.process = _context.Process(target=_main, args=(assignment, theirs, index, rendezvous), daemon=True)
        self.process.start()
        theirs.close()

    def take(self) -> Iterator[Event]:
        """What has arrived; it is heard no more when its pipe is at its end."""
        try:
            while self.pipe.poll():
                yield decode_event(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.is_heard = False


class PipeReporter:
    """The trainer's side of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._request: StopRequest | None = None
        threading.Thread(target=self._read, name="stop-reader", daemon=True).start()

    def emit(self, event: Event) -> None:
        self._pipe.send_bytes(encode(event))

    def stop_request(self) -> StopRequest | None:
        return self._request

    def _read(self) -> None:
        try:
            while True:
                self._request = decode_stop(self._pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)  # the worker is gone: nobody would take what we make


def _main(assignment: Assignment, pipe: Connection, index: int, rendezvous: Path | None) -> None:
    """One rank; of several, who find each other by the file ``rendezvous``."""
    _die_with_parent()
    _die_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the worker's to handle
    _redirect_output(assignment)
    from worker.job.attempt import RankLost, run_rank
    from worker.job.logs import log_to
    from worker.preflight import check

    exit_code = 0
    with log_to(logging.StreamHandler(sys.stderr), rank=index):
        try:
            if assignment.check_only:
                check(assignment, PipeReporter(pipe))
            else:
                run_rank(assignment, PipeReporter(pipe), index=index, rendezvous=rendezvous)
        except RankLost as lost:
            logging.getLogger(__name__).warning("Without the other ranks this one cannot go on: %s", lost.__cause__)
            exit_code = RANK_LOST
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # no exit handlers: those of imported libraries may wait for threads


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_first() -> None:
    """Where memory runs out the kernel is to end this process, whose job goes on from a checkpoint, and no server beside it."""
    with suppress(OSError):
        _OOM_SCORE.write_text(_FIRST_TO_DIE)


def _redirect_output(assignment: Assignment) -> None:
    """By descriptor, so that what native code writes before a crash is in the log too."""
    log = os.open(assignment.folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _nothing() -> None:
    """Forked once at the start: its end says that the fork server is ready."""
