"""How long a job still takes, by the steps that its check found and the pace of those that it takes now."""

from typing import Any

import pytest

from worker.host.record import remaining_seconds
from worker.protocol import Progress

STEPS = {"teacher": 300, "student": 100, "control": 100, "repeats": 400}
"""Three teachers; the student and its control, twice again."""


def at(step: int, part: Any, *, earlier: int = 0, total: int = 100, pace: float = 2.0) -> Progress:
    left = (total - step) * pace
    return Progress("student", step, total, 1, None, left, part=part, earlier_steps=earlier)


@pytest.mark.parametrize(
    ("progress", "steps"),
    [
        (at(0, "teacher"), 900),
        (at(50, "teacher", earlier=100), 150 + 600),
        (at(50, "student"), 50 + 100 + 400),
        (at(50, "control"), 50 + 400),
        (at(50, "repeats"), 350),
        (at(50, "repeats", earlier=300), 50),
        (at(50, "repeats", earlier=350), 50),
        (at(150, "student", total=200), 50 + 500),
    ],
)
def test_what_is_left_of_a_part_and_of_those_behind_it(progress: Progress, steps: int) -> None:
    assert remaining_seconds(STEPS, progress) == steps * 2.0


def test_of_a_job_that_was_not_checked_only_its_present_training_is_known() -> None:
    assert remaining_seconds({}, at(50, "teacher")) == 100


def test_what_has_no_pace_tells_nothing() -> None:
    assert remaining_seconds(STEPS, Progress("cache", 5, 10, 1, None, 5.0)) is None
    assert remaining_seconds(STEPS, Progress("student", 1, 10, 1, None, None, part="student")) is None
    assert remaining_seconds(STEPS, at(100, "student")) is None
