"""Processes that a trainer forks of its own: from the warm fork server that forked it, with one socket to each.

The library lets no daemon have children, has a forked process start a fork server of its own, and runs the program's main module
again in each child. None of it fits a trainer, which is a daemon, has a warm server above it, and may be a user's script. A child
ends with its trainer: it reads from the socket, whose other end the trainer alone has.
"""

import ctypes
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import context as contexts
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_DIE = "1000"
_context = multiprocessing.get_context("forkserver")
_server: Any = forkserver._forkserver


class ForkedProcess:
    """A process that runs ``target`` with its end of a socket and the arguments."""

    def __init__(self, target: Callable[..., None], *arguments: object, preload: str) -> None:
        """``preload`` names the module that the server imports, if no server forked this process and none runs yet."""
        _reach_server(preload)
        self.socket, theirs = _context.Pipe(duplex=True)
        try:
            self._popen = _Popen(_context.Process(target=target, args=(theirs, *arguments)))
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return int(self._popen.pid)

    def end(self) -> None:
        """Ends it: it finds its socket closed. Idempotent."""
        self.socket.close()


class _Popen(popen_forkserver.Popen):
    """The library's, but that the child does not run this program's main module."""

    _fds: list[int]
    """Descriptors for the child."""

    def _launch(self, process_obj: Any) -> None:
        preparation = spawn.get_preparation_data(process_obj.name)
        for name in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(name, None)
        data = io.BytesIO()
        contexts.set_spawning_popen(self)
        try:
            reduction.dump(preparation, data)
            reduction.dump(process_obj, data)
        finally:
            contexts.set_spawning_popen(None)
        self.sentinel, writer = _server.connect_to_new_process(self._fds)
        self.finalizer = util.Finalize(self, os.close, (self.sentinel,))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _reach_server(preload: str) -> None:
    if _server.get_inherited_fds() is not None:
        # Forked by a server, which ends only with its children: there is none to be started.
        _server.ensure_running = lambda: None
    elif _server._forkserver_pid is None:
        forkserver.set_forkserver_preload([preload])


def settle_in() -> None:
    """Makes this forked process end with its server, and before any other for want of memory; may be repeated."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        _OOM_SCORE.write_text(_FIRST_TO_DIE)


__all__ = ["Connection", "ForkedProcess", "settle_in"]
