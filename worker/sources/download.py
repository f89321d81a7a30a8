"""Downloads one network of the Hub in a process of its own, which can be killed, and which ends with its worker.

The request goes to its standard input, so that the token is in no list of processes; the end of that input ends the process.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from worker.sources.errors import HubAway, SourceRefused
from worker.sources.hub import fetch_snapshot

_POLL_SECONDS = 0.2
_LIBRARY = ".library"
"""The library's own folder in the one that is being filled: with it a download goes on where one before it was killed."""


def download(source: str, folder: Path, *, commit: str, token: str | None, on_poll: Callable[[], None]) -> None:
    """Downloads the files of ``hub:REPO`` at a commit into ``folder``; ``on_poll``, called meanwhile, may end it by raising.

    Raises:
        SourceRefused, HubAway, OSError: as :func:`fetch_snapshot` does.
    """
    request = json.dumps({"source": source, "folder": str(folder), "commit": commit, "token": token})
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.sources.download"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the library's own words, which nobody has looked through for the token
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            while process.poll() is None:
                on_poll()
                try:
                    process.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if not answer:
        raise HubAway(f"{source} cannot be fetched: its download ended by {process.returncode}.", "It is begun again.")
    match json.loads(answer):
        case ["refused", message, hint]:
            raise SourceRefused(message, hint)
        case ["away", message, hint]:
            raise HubAway(message, hint)
        case ["machine", number, message]:
            raise OSError(number, message)


def _main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = Path(request["folder"])
    answer: list[str | int] = ["done"]
    try:
        fetch_snapshot(request["source"], folder, commit=request["commit"], token=request["token"], library=folder / _LIBRARY)
    except SourceRefused as refused:
        answer = ["refused", refused.message, refused.hint]
    except HubAway as away:
        answer = ["away", away.message, away.hint]
    except OSError as error:
        answer = ["machine", error.errno or 0, str(error.strerror or error)]
    sys.stdout.write(json.dumps(answer))


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    _main()
