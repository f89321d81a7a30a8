"""The last event of a check that ended with an error: the job is refused, with place and remedy, or checked again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from worker.data import UnusableData
from worker.errors import StopAsked
from worker.job.error_mapping import as_failure
from worker.protocol import Failed

HINTS = {
    "/dataset": "Mend what the message names and give the data anew, or name another dataset.",
    "/student/tokenizer": "Raise its vocab_size, or leave it out to read as the teacher does.",
    "/student": "Choose another architecture or config; `stillhouse catalogue architectures` lists them.",
    "/teacher": "Choose another teacher, architecture or config; `stillhouse catalogue architectures` lists them.",
    "/method": "Choose other layers or another method; `stillhouse catalogue methods` tells what each compares.",
    "/training/augment": "Leave that augmentation out, or take another; `stillhouse catalogue augmentations` lists them.",
    "/training": "Change the training as the message says.",
    "/exports": "Leave that export out, or take another student.",
}
"""By prefix of the place; the first match counts."""


class LocatedError(Exception):
    """An error, its ``__cause__``, with its place in the spec."""

    def __init__(self, pointer: str) -> None:
        super().__init__(pointer)
        self.pointer = pointer


@contextmanager
def located_at(pointer: str) -> Iterator[None]:
    """Locates the errors of a block at this place in the spec, unless they know a closer one. Raises LocatedError."""
    try:
        yield
    except (StopAsked, LocatedError):
        raise
    except Exception as error:
        raise LocatedError(pointer) from error


def outcome_of(error: Exception) -> Failed:
    """The last event of a check that ended with this error."""
    pointer = None
    if isinstance(error, LocatedError) and isinstance(error.__cause__, Exception):
        pointer, error = error.pointer, error.__cause__
    failed = as_failure(error)
    if isinstance(error, UnusableData) and isinstance(error.__cause__, OSError):
        # The file may be intact, and this host's disk or network at fault.
        return replace(failed, code="trainer_error", retryable=True)
    place = _place(failed.details) or pointer or ("/dataset/source" if failed.code == "invalid_data" else "")
    if failed.retryable:
        return failed
    if failed.code in {"input_unavailable", "teacher_unfit"}:
        return replace(failed, details={**failed.details, "pointer": place})
    return Failed(
        "preflight_failed",
        failed.message,
        failed.hint or next((hint for start, hint in HINTS.items() if place.startswith(start)), None),
        {**failed.details, "pointer": place, "cause": failed.code},
    )


def _place(details: dict[str, Any]) -> str | None:
    if "pointer" in details:
        return str(details["pointer"])
    errors = details.get("errors")
    return str(errors[0]["pointer"]) if errors else None
