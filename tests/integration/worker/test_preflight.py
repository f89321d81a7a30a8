"""Checks in a trainer's own process, forked from the warm fork server."""

import time
from pathlib import Path

import pytest

from service.spec.estimate import Estimate
from tests.unit.worker.preflight.jobs import digits
from worker.host.trainer_process import TrainerProcess, warm_up
from worker.protocol import LOG_FILE, Assignment, Checked, Event, Failed, PhaseStarted, Stopped, StopRequest

TIMEOUT_SECONDS = 90


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


def follow(process: TrainerProcess) -> list[Event]:
    """All events, to the process's end."""
    events: list[Event] = []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not process.ended:
        assert time.monotonic() < deadline, events
        events += process.events(timeout_seconds=1.0)
    assert process.exit_code() == 0
    return events


def assignment(document: dict[str, object], folder: Path) -> Assignment:
    return Assignment("job_test", document, folder, num_threads=1, check_only=True)


def test_a_check_goes_through_the_pipe_to_its_estimate(tmp_path: Path) -> None:
    *phases, last = follow(TrainerProcess(assignment(digits(evaluation={"control": True}), tmp_path)))
    assert isinstance(last, Checked), (last, (tmp_path / LOG_FILE).read_text())
    assert Estimate.model_validate(last.estimate).steps == {"teacher": 7, "student": 60, "control": 60}
    assert {event.phase for event in phases if isinstance(event, PhaseStarted)} == {"checking"}


def test_a_refusal_goes_through_the_pipe_with_its_place(tmp_path: Path) -> None:
    method = {"name": "fitnet", "layers": {"student": ["nowhere"], "teacher": ["features"]}}
    (last,) = follow(TrainerProcess(assignment(digits(method=method), tmp_path)))
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("preflight_failed", "/method")


def test_a_check_that_is_asked_to_stop_stops(tmp_path: Path) -> None:
    process = TrainerProcess(assignment(digits(method={"name": "born-again", "generations": 10}), tmp_path))
    process.ask_to_stop(StopRequest("cancel"))
    assert follow(process)[-1] == Stopped("cancel")
