"""A trainer as a process: forked from a warm fork server, talked to over one pipe, ended with its worker whatever happens.

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
from collections.abc import Iterator
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection

from worker.protocol import LOG_FILE, Assignment, Event, StopRequest, decode_event, decode_stop, encode
from worker.threads import let_idle_threads_sleep

_PR_SET_PDEATHSIG = 1
_END_SECONDS = 60.0
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
    """One running attempt."""

    def __init__(self, assignment: Assignment) -> None:
        self._pipe, theirs = _context.Pipe(duplex=True)
        self._process = _context.Process(target=_main, args=(assignment, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._ended = False

    @property
    def pid(self) -> int:
        """The process's id on this host."""
        return self._process.pid or 0

    def events(self, *, timeout_seconds: float) -> Iterator[Event]:
        """What has arrived, after waiting at most so long for the first; nothing more once :attr:`ended`."""
        if self._ended:
            return
        if not connection.wait([self._pipe, self._process.sentinel], timeout_seconds):
            return
        try:
            while self._pipe.poll():
                yield decode_event(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self._ended = True

    @property
    def ended(self) -> bool:
        """Whether the trainer is gone and its last event was read."""
        return self._ended

    def ask_to_stop(self, request: StopRequest) -> None:
        """Sends the request; a trainer that is gone already needs none."""
        try:
            self._pipe.send_bytes(encode(request))
        except OSError:
            self._ended = self._ended or not self._process.is_alive()

    def kill(self) -> None:
        """Ends the process at once. Safe from any thread, and to repeat."""
        self._process.kill()

    def exit_code(self) -> int:
        """Waits for the end, which one that has closed its pipe is seconds from; negative for the signal that ended it."""
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        return self._process.exitcode or 0


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


def _main(assignment: Assignment, pipe: Connection) -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the worker's to handle
    _redirect_output(assignment)
    from worker.logs import log_to
    from worker.trainer import run

    with log_to(logging.StreamHandler(sys.stderr)):
        run(assignment, PipeReporter(pipe))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # no exit handlers: those of imported libraries may wait for threads


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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
