"""Downloads one network of the Hub in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.sources.errors import HubAway, SourceRefused
from worker.sources.hub import fetch_snapshot
from worker.sources.own_process import answer, call

_LIBRARY = ".library"
"""The library's own folder in the one that is being filled: with it a download goes on where one before it was killed."""


def download(source: str, folder: Path, *, commit: str, token: str | None, on_poll: Callable[[], None]) -> None:
    """Downloads the files of ``hub:REPO`` at a commit into ``folder``; ``on_poll``, called meanwhile, may end it by raising.

    Raises:
        SourceRefused, HubAway, OSError: as :func:`fetch_snapshot` does.
    """
    request = {"source": source, "folder": str(folder), "commit": commit, "token": token}
    match call("worker.sources.download", request, on_poll=on_poll):
        case None, exit_code:
            raise HubAway(f"{source} cannot be fetched: its download ended by {exit_code}.", "It is begun again.")
        case ["refused", message, hint], _:
            raise SourceRefused(message, hint)
        case ["away", message, hint], _:
            raise HubAway(message, hint)
        case ["machine", number, message], _:
            raise OSError(number, message)


def _download(request: dict[str, Any]) -> list[Any]:
    folder = Path(request["folder"])
    try:
        fetch_snapshot(request["source"], folder, commit=request["commit"], token=request["token"], library=folder / _LIBRARY)
    except SourceRefused as refused:
        return ["refused", refused.message, refused.hint]
    except HubAway as away:
        return ["away", away.message, away.hint]
    except OSError as error:
        return ["machine", error.errno or 0, str(error.strerror or error)]
    return ["done"]


if __name__ == "__main__":
    answer(_download)
