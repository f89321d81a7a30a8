"""Error messages and exit codes of the commands.

0  done
1  the job failed or was cancelled
2  the command or the spec is invalid; each error is printed with its place
3  the service is not reachable or not ready
4  the job succeeded, and its student is not what the spec's ``require`` asks for
"""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from service.client import ApiError, ClientError, PreviewFailed, Unreachable, WaitTimeout
from service.connection import NoConnection
from service.errors import InvalidSpec as InvalidSpecFile

JOB_FAILED = 1
USAGE = 2
SERVICE_AWAY = 3
NOT_ACCEPTED = 4
INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot be carried out; the message is for people."""

    def __init__(self, message: str, *, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


Expected = (ClientError, NoConnection, InvalidSpecFile, CommandFailed, OSError)
"""The errors that :func:`explain` prints; any other exception is a defect and keeps its traceback."""


def explain(error: Exception, console: Console) -> int:
    """Prints the error and returns the exit code."""
    match error:
        case ApiError():
            request = f" (request {error.request_id})" if error.request_id else ""
            _print(f"{error.detail}{request}", console)
            return SERVICE_AWAY if error.status >= 500 or error.temporary else USAGE
        case Unreachable() | NoConnection():
            _print(str(error), console)
            return SERVICE_AWAY
        case PreviewFailed(failure=failure):
            _print(f"{error}\n  {failure.hint}" if failure.hint else str(error), console)
            return JOB_FAILED
        case WaitTimeout():
            _print(str(error), console)
            return JOB_FAILED
        case CommandFailed():
            _print(str(error), console)
            return error.exit_code
        case _:
            _print(str(error), console)
            return USAGE


def refuse_unaccepted(figures: Mapping[str, Any] | None) -> None:
    """Raises CommandFailed for a job's ``result`` whose student is not accepted."""
    if missed := (figures or {}).get("not_accepted"):
        raise CommandFailed("the student is not accepted: " + "; ".join(missed), exit_code=NOT_ACCEPTED)


def missing_extra(error: ModuleNotFoundError, extra: str) -> CommandFailed:
    """The error for a module that an extra would install."""
    return CommandFailed(
        f"this command needs {error.name}, which is not installed: {sys.executable} -m pip install 'stillhouse[{extra}]'"
    )


def _print(message: str, console: Console) -> None:
    console.print("error: ", style="bold red", end="")
    console.print(message, markup=False)
