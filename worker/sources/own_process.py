"""Work for one network in a process of its own, which can be killed, and which ends with the one that began it.

The request goes to its standard input, so that what it holds is in no list of processes; the end of that input ends the process.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

_POLL_SECONDS = 0.2


def call(module: str, request: dict[str, Any], *, on_poll: Callable[[], None]) -> tuple[list[Any] | None, int]:
    """Runs a module that calls :func:`answer`; returns its answer, None if there is none, and its exit code.

    ``on_poll``, called several times a second meanwhile, may end it by raising.
    """
    process = subprocess.Popen(  # noqa: S603 - a module of this project
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the libraries' own words, which nobody has looked through for what the request holds
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while process.poll() is None:
                on_poll()
                try:
                    process.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
            answered = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    return json.loads(answered) if answered else None, process.returncode


def answer(work: Callable[[dict[str, Any]], list[Any]]) -> None:
    """The main function of such a process: answers its request."""
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdout.write(json.dumps(work(request)))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not by the file object, whose lock the interpreter needs to end
        pass
    os._exit(1)
