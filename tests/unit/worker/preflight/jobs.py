"""Small jobs to check, and what a check says of them."""

from pathlib import Path
from typing import Any

from service.spec import parse_spec
from service.spec.estimate import Estimate
from worker.preflight import check
from worker.protocol import Assignment, Checked, Event, Failed, StopRequest

CNN: dict[str, Any] = {"name": "small-cnn", "width": 4}


class Recorder:
    """Keeps what is told; asks to stop where it is made to."""

    def __init__(self, stop: StopRequest | None = None) -> None:
        self.events: list[Event] = []
        self._stop = stop

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def stop_request(self) -> StopRequest | None:
        return self._stop


def digits(**changes: Any) -> dict[str, Any]:
    """A job of images, normalised."""
    document: dict[str, Any] = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 7}},
        "student": {"architecture": CNN},
        "training": {"epochs": 3},
    }
    return normalised(document | changes)


def normalised(document: dict[str, Any]) -> dict[str, Any]:
    return parse_spec(document).model_dump(mode="json")


def checked(document: dict[str, Any], folder: Path, **options: Any) -> Event:
    """The last event of a check."""
    recorder = Recorder()
    check(Assignment("job_test", document, folder, num_threads=1, check_only=True, **options), recorder)
    return recorder.events[-1]


def estimate(document: dict[str, Any], folder: Path, **options: Any) -> Estimate:
    """Of a job that passes."""
    last = checked(document, folder, **options)
    assert isinstance(last, Checked), last
    return Estimate.model_validate(last.estimate)


def refused(document: dict[str, Any], folder: Path, **options: Any) -> Failed:
    """What is told of a job that fails, with its place and a remedy."""
    last = checked(document, folder, **options)
    assert isinstance(last, Failed), last
    assert (last.code, last.retryable) == ("preflight_failed", False), last
    assert last.hint, last
    return last
