"""Converts a data file in a process of its own: a file that breaks a library, or takes all memory, ends no worker."""

import logging
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from service.errors import InvalidFile
from worker.host.fork_server import fork
from worker.host.trainer_process import settle_in
from worker.sources.data_files import DataFile, convert

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.2


class ConversionLost(Exception):
    """The process that converted a file has ended by itself."""


def convert_apart(file: DataFile, path: Path, folder: Path, *, on_poll: Callable[[], None]) -> None:
    """Does what :func:`worker.sources.data_files.convert` does; ``on_poll`` is called meanwhile, and ends it by raising.

    Raises:
        ConversionLost: the process was killed, for its memory say.
    """
    forked = fork(_convert, file, path, folder)
    try:
        while not forked.pipe.poll(_POLL_SECONDS):
            on_poll()
        failure = forked.pipe.recv()
    except EOFError as error:
        why = "was this host short of memory?"
        raise ConversionLost(f"the process that converted {file.filename!r} was killed; {why}") from error
    finally:
        forked.process.kill()
        forked.pipe.close()
    match failure:
        case ("file", detail):
            raise InvalidFile(detail)
        case ("system", number, words):
            raise OSError(number, words)
        case ("ours", words):
            raise RuntimeError(f"{file.filename!r} could not be converted: {words}")


def _convert(pipe: Connection, file: DataFile, path: Path, folder: Path) -> None:
    settle_in()
    failure: tuple[object, ...] = ()
    try:
        convert(file, path, folder)
    except InvalidFile as error:
        failure = "file", error.detail
    except OSError as error:
        failure = "system", error.errno, error.strerror or str(error)
    except Exception as error:
        logger.exception("a file could not be converted")
        failure = "ours", f"{type(error).__name__}: {error}"
    pipe.send(failure)
    os._exit(0)  # no exit handlers: those of imported libraries may wait for threads
