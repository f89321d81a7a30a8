"""Checks in a trainer's own process, forked from the warm fork server."""

from pathlib import Path

import pytest

from service.spec.estimate import Estimate
from tests.unit.worker.preflight.jobs import digits
from worker.host.executor import LocalExecutor, follow
from worker.host.fork_server import warm_up
from worker.protocol import LOG_FILE, Assignment, Checked, Event, Failed, PhaseStarted, Stopped, StopRequest


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


def check(document: dict[str, object], folder: Path, *, stop: StopRequest | None = None) -> list[Event]:
    """All events of a check, to the end of its process."""
    events: list[Event] = []
    assignment = Assignment("job_test", document, folder, num_threads=1, check_only=True)
    ending = follow(LocalExecutor().start(assignment), on_event=events.append, wanted_stop=lambda: stop)
    assert ending.exit_code == 0
    assert ending.last == events[-1]
    return events


def test_a_check_goes_through_the_pipe_to_its_estimate(tmp_path: Path) -> None:
    *phases, last = check(digits(evaluation={"control": True}), tmp_path)
    assert isinstance(last, Checked), (last, (tmp_path / LOG_FILE).read_text())
    assert Estimate.model_validate(last.estimate).steps == {"teacher": 7, "student": 60, "control": 60}
    assert {event.phase for event in phases if isinstance(event, PhaseStarted)} == {"checking"}


def test_a_refusal_goes_through_the_pipe_with_its_place(tmp_path: Path) -> None:
    method = {"name": "fitnet", "layers": {"student": ["nowhere"], "teacher": ["features"]}}
    (last,) = check(digits(method=method), tmp_path)
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("preflight_failed", "/method")


def test_a_check_that_is_asked_to_stop_stops(tmp_path: Path) -> None:
    document = digits(method={"name": "born-again", "generations": 10})
    assert check(document, tmp_path, stop=StopRequest("cancel"))[-1] == Stopped("cancel")
