"""The table of transitions against the lifecycle as it was designed."""

from typing import get_args

import pytest

from service.lifecycle import FINAL, HAPPENS_IN, TRANSITIONS, Event, Priority, Status, may_happen, may_move
from service.spec.job import Priority as PriorityWord

# from, event, to: each arrow of the design, and the cancel of a paused job.
DESIGNED = """
    checking  preflight-passed   queued
    checking  needs-another      waiting
    checking  preflight-refused  failed
    checking  cancel             cancelled
    waiting   need-succeeded     queued
    waiting   need-failed        failed
    waiting   cancel             cancelled
    queued    claim              running
    queued    pause              paused
    queued    needs-another      waiting
    queued    cancel             cancelled
    running   finished           succeeded
    running   own-error          failed
    running   time-limit         failed
    running   lost-lease         queued
    running   pause              paused
    running   cancel             cancelled
    paused    resume             queued
    paused    cancel             cancelled
"""


def test_the_legal_moves_are_those_of_the_design() -> None:
    designed = {(source, target) for source, _, target in map(str.split, DESIGNED.strip().splitlines())}
    assert {(source.value, target.value) for source in Status for target in Status if may_move(source, target)} == designed


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize("status", Status)
def test_final_states_are_those_that_nothing_leaves(status: Status) -> None:
    assert (status in FINAL) == (not TRANSITIONS[status])


@pytest.mark.parametrize("status", Status)
def test_a_job_can_end_from_every_state(status: Status) -> None:
    assert reachable(status) & FINAL


def test_every_state_is_reached_by_a_job_that_was_just_submitted() -> None:
    assert reachable(Status.CHECKING) == set(Status)


@pytest.mark.parametrize("event", Event)
def test_an_event_within_a_state_has_the_one_that_it_happens_in(event: Event) -> None:
    assert [status for status in Status if may_happen(event, status)] == [HAPPENS_IN[event]]
    assert HAPPENS_IN[event] not in FINAL


def test_the_priorities_are_those_of_the_spec_in_the_order_of_the_queue() -> None:
    assert [(priority.word, priority.value) for priority in Priority] == [("high", 0), ("normal", 1), ("low", 2)]
    assert {priority.word for priority in Priority} == set(get_args(PriorityWord))
    assert [Priority.named(priority.word) for priority in Priority] == list(Priority)


def reachable(start: Status) -> set[Status]:
    found = {start}
    while more := {target for source in found for target in TRANSITIONS[source]} - found:
        found |= more
    return found
