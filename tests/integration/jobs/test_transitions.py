"""Every transition of a job from each state, with each fence; each is whole, or has not happened."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import jobs
from service.clock import now
from service.errors import NotFound
from service.jobs import Fence, transitions
from service.lifecycle import HAPPENS_IN, TRANSITIONS, Event, Outcome, Status
from service.spec import parse_spec
from service.tables import Job
from tests.integration.jobs.conftest import (
    ALREADY,
    APPLIED,
    ENDS_ATTEMPT,
    FAILURE,
    FENCED,
    LEASE_LOST,
    NOT_ALLOWED,
    PEOPLES,
    Team,
    Write,
    cancel,
    crash,
    pause,
    renew,
    resume,
    succeed,
)

ANSWERS: dict[str, dict[Status, tuple[Outcome, str | None]]] = {
    "cancel": {
        Status.CHECKING: (APPLIED, "cancelled"),
        Status.WAITING: (APPLIED, "cancelled"),
        Status.QUEUED: (APPLIED, "cancelled"),
        Status.RUNNING: (APPLIED, "running"),
        Status.PAUSED: (APPLIED, "cancelled"),
        Status.SUCCEEDED: (NOT_ALLOWED, None),
        Status.FAILED: (NOT_ALLOWED, None),
        Status.CANCELLED: (ALREADY, None),
    },
    "pause": {
        Status.CHECKING: (NOT_ALLOWED, None),
        Status.WAITING: (NOT_ALLOWED, None),
        Status.QUEUED: (APPLIED, "paused"),
        Status.RUNNING: (APPLIED, "running"),
        Status.PAUSED: (ALREADY, None),
        Status.SUCCEEDED: (NOT_ALLOWED, None),
        Status.FAILED: (NOT_ALLOWED, None),
        Status.CANCELLED: (NOT_ALLOWED, None),
    },
    "resume": {
        Status.CHECKING: (NOT_ALLOWED, None),
        Status.WAITING: (NOT_ALLOWED, None),
        Status.QUEUED: (ALREADY, None),
        Status.RUNNING: (ALREADY, None),
        Status.PAUSED: (APPLIED, "queued"),
        Status.SUCCEEDED: (NOT_ALLOWED, None),
        Status.FAILED: (NOT_ALLOWED, None),
        Status.CANCELLED: (NOT_ALLOWED, None),
    },
}


MOVES: dict[Status, dict[str, Callable[[Session, Job], Outcome]]] = {
    Status.WAITING: {"wait": lambda session, job: transitions.wait(session, job, "waits")},
    Status.QUEUED: {
        "enqueue": lambda session, job: transitions.enqueue(session, job, "queued"),
        "requeue": lambda session, job: transitions.requeue(session, job, "queued"),
        "resume": transitions.resume,
    },
    Status.RUNNING: {
        "start": lambda session, job: transitions.start(
            session, job, worker_id="worker_1", devices=["cpu:0"], at=now(session), lease_seconds=60
        )
    },
    Status.PAUSED: {"pause": lambda session, job: transitions.pause(session, job, "paused")},
    Status.SUCCEEDED: {"succeed": transitions.succeed},
    Status.FAILED: {"fail": lambda session, job: transitions.fail(session, job, FAILURE)},
    Status.CANCELLED: {"cancel": lambda session, job: transitions.cancel(session, job, "cancelled")},
}
"""The transitions to another state, by that state."""
WITHIN: dict[Event, Callable[[Session, Job], Outcome]] = {
    Event.CHECK_STARTED: lambda session, job: transitions.start_check(session, job, worker_id="worker_1", lease_seconds=60),
    Event.CHECK_LOST: lambda session, job: transitions.lose_check(session, job, "lost"),
    Event.PROMOTED: transitions.promote,
    Event.STOP_REQUESTED: lambda session, job: transitions.request_stop(session, job, "pause", message="pause"),
    Event.STOP_WITHDRAWN: transitions.withdraw_stop,
}
"""Those that leave a job in its state."""


@pytest.mark.parametrize("source", Status)
def test_a_transition_from_a_state_that_forbids_it_changes_nothing(team: Team, source: Status) -> None:
    job_id = team.bring_to(source).job_id
    moves = [move for target, moves in MOVES.items() if target not in TRANSITIONS[source] for move in moves.values()]
    events = [happen for event, happen in WITHIN.items() if HAPPENS_IN[event] is not source]
    before = team.everything()
    for refused in moves + events:
        assert team.do(lambda session, call=refused: call(session, jobs.get(session, job_id, lock=True))) is NOT_ALLOWED
    assert team.everything() == before


@pytest.mark.parametrize("verb", PEOPLES)
@pytest.mark.parametrize("status", Status)
def test_what_people_ask_for_is_answered_by_the_state(team: Team, verb: str, status: Status) -> None:
    fence = team.bring_to(status)
    before = team.everything()
    expected, target = ANSWERS[verb][status]
    assert team.do(PEOPLES[verb], fence) is expected
    if target is None:
        assert team.everything() == before
    else:
        assert team.status(fence.job_id) == target
        assert team.do(PEOPLES[verb], fence) is ALREADY


def test_the_answers_cover_every_arrow_that_people_may_take() -> None:
    """Whoever adds an arrow to the lifecycle is reminded of this table."""
    asked = {
        (source, Status(target))
        for answers in ANSWERS.values()
        for source, (_, target) in answers.items()
        if target and target != source
    }
    settled = {(Status.RUNNING, Status(target)) for target in ENDS_ATTEMPT.values()}
    by_others = {  # the preflight, the claim, the jobs that it needs, an edit of which those are
        (Status.CHECKING, Status.QUEUED), (Status.CHECKING, Status.WAITING), (Status.CHECKING, Status.FAILED),
        (Status.WAITING, Status.QUEUED), (Status.WAITING, Status.FAILED), (Status.QUEUED, Status.RUNNING),
            (Status.QUEUED, Status.WAITING),
    }  # fmt: skip
    assert asked | settled | by_others == {(source, target) for source in Status for target in TRANSITIONS[source]}


@pytest.mark.parametrize("name", FENCED)
def test_the_attempt_that_holds_the_job_may_write(team: Team, name: str) -> None:
    fence = team.running()
    assert team.do(FENCED[name], fence) is APPLIED
    assert team.status(fence.job_id) == ENDS_ATTEMPT.get(name, "running")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.RUNNING])
def test_a_late_message_of_an_attempt_that_is_over_changes_nothing(team: Team, status: Status) -> None:
    fence = team.bring_to(status)
    before = team.everything()
    for name, write in FENCED.items():
        assert team.do(write, fence) is LEASE_LOST, name
    assert team.everything() == before


@pytest.mark.parametrize("name", FENCED)
@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_write_with_the_fence_of_another_attempt_changes_nothing(team: Team, name: str, off_by: int) -> None:
    team.running()
    fence = team.bring_by(crash)
    assert team.run() == replace(fence, attempt=2)
    before = team.everything()
    assert team.do(FENCED[name], replace(fence, attempt=2 + off_by)) is LEASE_LOST
    assert team.everything() == before


def test_a_write_of_a_job_that_does_not_exist_changes_nothing(team: Team) -> None:
    before = team.everything()
    for name, write in FENCED.items():
        assert team.do(write, Fence("job_none", 1)) is LEASE_LOST, name
    assert team.everything() == before


@pytest.mark.parametrize("ask", [cancel, pause, resume])
def test_asking_something_of_a_job_that_does_not_exist_is_an_error(team: Team, ask: Write) -> None:
    with pytest.raises(NotFound, match="job_none"):
        team.do(ask, Fence("job_none", 0))


def test_submitting_writes_the_row_and_its_first_event(team: Team) -> None:
    job = team.job(team.submit(name="digits", labels={"project": "x"}, priority="low"))
    assert (job.status, job.name, job.labels, job.priority) == ("queued", "digits", {"project": "x"}, 2)
    assert (job.attempt, job.version, job.last_event_seq, job.queued_at) == (0, 1, 1, job.created_at)
    assert parse_spec(job.spec).model_dump(mode="json") == job.spec
    (event,) = team.events(job.id)
    assert (event.seq, event.type, event.created_at) == (1, "job.queued", job.created_at)


STATUS_CHANGES: dict[str, tuple[Status, Write]] = {
    **{name: (Status.RUNNING, FENCED[name]) for name in ENDS_ATTEMPT},
    "cancel": (Status.QUEUED, cancel),
    "pause": (Status.QUEUED, pause),
    "resume": (Status.PAUSED, resume),
    "ask to cancel": (Status.RUNNING, cancel),
    "ask to pause": (Status.RUNNING, pause),
}


@pytest.mark.parametrize("name", STATUS_CHANGES)
def test_a_transition_and_its_event_are_one_transaction(team: Team, name: str) -> None:
    source, write = STATUS_CHANGES[name]
    fence = team.bring_to(source)
    before = team.job(fence.job_id)
    team.do(write, fence)
    after = team.job(fence.job_id)
    assert (after.version, after.last_event_seq) == (before.version + 1, before.last_event_seq + 1)
    event = team.events(fence.job_id)[-1]
    assert (event.seq, event.type) == (
        after.last_event_seq,
        f"job.{after.status if after.status != source else 'stop_requested'}",
    )
    if after.status != source:
        assert event.message == after.status_reason
    # PostgreSQL notes on each row which transaction wrote it.
    writer = "SELECT xmin::text FROM"
    with team.database.engine.connect() as connection:
        of_job = connection.scalar(text(f"{writer} jobs WHERE id = :id"), {"id": event.job_id})
        of_event = connection.scalar(
            text(f"{writer} job_events WHERE job_id = :id AND seq = :seq"), {"id": event.job_id, "seq": event.seq}
        )
    assert of_job == of_event


@pytest.mark.parametrize("name", STATUS_CHANGES)
def test_a_transition_whose_transaction_fails_has_not_happened(team: Team, name: str) -> None:
    source, write = STATUS_CHANGES[name]
    fence = team.bring_to(source)
    before = team.everything()

    def write_and_fail(session: Session) -> None:
        assert write(session, fence) is APPLIED
        session.flush()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        team.do(write_and_fail)
    assert team.everything() == before
    assert team.do(write, fence) is APPLIED


def test_a_success_that_the_database_refuses_leaves_the_job_running(team: Team) -> None:
    fence = team.running()
    before = team.everything()
    with pytest.raises(IntegrityError):
        team.do(lambda session: succeed(session, fence, names=("report.json", "report.json")))
    assert team.everything() == before
    assert team.do(succeed, fence) is APPLIED


@pytest.mark.parametrize("name", [name for name in FENCED if name not in {"renew", *ENDS_ATTEMPT}])
def test_whatever_a_reader_can_see_raises_the_version(team: Team, name: str) -> None:
    fence = team.running()
    before = team.job(fence.job_id).version
    team.do(FENCED[name], fence)
    assert team.job(fence.job_id).version == before + 1


def test_a_heartbeat_is_no_news(team: Team) -> None:
    fence = team.running()
    before = team.job(fence.job_id).version
    team.do(renew, fence)
    assert team.job(fence.job_id).version == before


def test_an_edit_reaches_the_columns_the_spec_and_the_audit(team: Team) -> None:
    job_id = team.submit(name="old", priority="low")
    team.do(lambda session: jobs.edit(session, job_id, name="new", labels={"a": "b"}, priority="normal"))
    job = team.job(job_id)
    assert (job.name, job.labels, job.priority, job.version) == ("new", {"a": "b"}, 1, 2)
    assert (job.spec["name"], job.spec["labels"], job.spec["priority"]) == ("new", {"a": "b"}, "normal")
    event = team.events(job_id)[-1]
    assert (event.type, event.data) == ("job.edited", {"name": "new", "labels": {"a": "b"}, "priority": "normal"})
    team.do(lambda session: jobs.edit(session, job_id))
    assert team.job(job_id).version == 2
