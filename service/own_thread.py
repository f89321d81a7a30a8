"""Work that may never end, as a call on a network share that is frozen."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_own_thread(work: Callable[[], T], *, name: str) -> "Future[T]":
    """Runs ``work`` in a thread that no pool counts and that the end of the process does not wait for."""
    future: Future[T] = Future()
    threading.Thread(target=_run, args=[work, future], name=name, daemon=True).start()
    return future


def _run(work: Callable[[], T], future: "Future[T]") -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever asks the future gets it
        future.set_exception(error)
        del future  # else it holds the error, whose traceback holds it, and with it what the work had opened
    else:
        future.set_result(result)
