"""The fork server: the process that trainers are forked from. It has imported torch and run no operation.

No wait for it is without a limit. One that does not answer is killed, with all that were forked from it, and the next fork starts
another: a machine did that, and no job pays for it. (On Linux the kernel ends what was forked from one that has ended.)
"""

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from service.part_errors import PartAway
from worker.host.openmp import let_idle_threads_sleep

logger = logging.getLogger(__name__)

SERVER_LOST = 255
"""Exit code of a process whose fork server has ended, so that nobody knows its own (multiprocessing.popen_forkserver)."""
_LOOK_SECONDS = 1.0
"""Limits are counted in looks: a time in which this host stood still is one of them."""
_ANSWER_LOOKS = 10
_START_LOOKS = 300
"""Of one that has not answered yet: it imports first."""
_TRIES = 5
_PAUSE_SECONDS = 0.2
"""In which one that was killed is gone."""
context = multiprocessing.get_context("forkserver")
_server: Any = forkserver._forkserver  # the library tells nobody the pid, which is needed to kill it
_answered: set[int] = set()
"""The pid of the fork server that has answered."""


@dataclass(frozen=True)
class Forked:
    """A process, and this end of the pipe to it."""

    process: BaseProcess
    pipe: Connection


def start_fork_server() -> None:
    """Starts the fork server, which then imports everything that trainers need. Harmless to repeat."""
    let_idle_threads_sleep()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's order, by which the devices were found
    context.set_forkserver_preload(["worker.preload"])
    forkserver.ensure_running()


def warm_up() -> None:
    """Returns once the fork server is ready."""
    start_fork_server()
    _prove()


def fork(target: Callable[..., None], *arguments: object) -> Forked:
    """Forks a process that runs ``target`` with its end of a pipe and the arguments. Raises PartAway."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return _fork(target, *arguments)
        except (EOFError, ConnectionError) as error:
            if not tries_left:
                raise PartAway("the fork server has ended") from error
        time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


def wait_for(process: BaseProcess, *, seconds: float = math.inf) -> None:
    """Waits until a forked process has ended, which the fork server tells; at most ``seconds``."""
    give_up_at = time.monotonic() + seconds
    while process.exitcode is None and (left := give_up_at - time.monotonic()) > 0:
        process.join(min(left, answer_seconds()))
        if process.exitcode is None:
            _prove()


def answer_seconds() -> float:
    """How long a process that is idle has for an answer."""
    return _ANSWER_LOOKS * _LOOK_SECONDS


def _fork(target: Callable[..., None], *arguments: object) -> Forked:
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    try:
        with _limited():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Forked(process, ours)


@contextmanager
def _limited() -> Iterator[None]:
    """Kills the fork server if the block, which waits for it, takes too long."""
    forkserver.ensure_running()
    pid: int = _server._forkserver_pid
    looks = _ANSWER_LOOKS if pid in _answered else _START_LOOKS
    is_over = threading.Event()

    def watch() -> None:
        for _ in range(looks):
            if is_over.wait(_LOOK_SECONDS):
                return
        logger.error("the fork server %d does not answer, and is killed with all that were forked from it", pid)
        _kill(pid)

    threading.Thread(target=watch, name="fork server's limit", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
    _answered.clear()
    _answered.add(pid)


def _kill(pid: int) -> None:
    with _server._lock:  # under which it is reaped: until then the pid is its own
        if _server._forkserver_pid == pid:
            os.kill(pid, signal.SIGKILL)


def _prove() -> None:
    """Returns once a fork server has answered, be it another one."""
    fork(_nothing).pipe.close()


def _nothing(pipe: object) -> None:
    """Runs a process that is forked for the answer alone."""
