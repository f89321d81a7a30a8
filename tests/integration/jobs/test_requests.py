"""What ends an attempt: requests, drains and crashes, and where the job goes then."""

from dataclasses import replace

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from service import jobs
from service.errors import JobFailure
from service.jobs import Fence
from service.tables import Job
from tests.integration.jobs.conftest import (
    ALREADY,
    APPLIED,
    NOT_ALLOWED,
    PEOPLES,
    Team,
    Write,
    cancel,
    crash,
    lose,
    pause,
    resume,
    stop_for,
    student,
)


def test_the_first_cancel_decides_what_is_kept(team: Team) -> None:
    fence = team.running()
    for keep in ("none", "best"):
        team.do(lambda session, keep: jobs.request_cancel(session, fence.job_id, keep=keep), keep)
    assert team.do(lambda session: jobs.renew_lease(session, fence, lease_seconds=1)) == jobs.Renewal("cancel", "none")


@pytest.mark.parametrize(
    ("writes", "reason"),
    [
        ([stop_for("cancel")], "cancelled by request: no student is kept"),
        ([cancel, crash], "cancelled by request: no student is kept; the attempt had ended: the trainer ended by SIGSEGV"),
        ([stop_for("pause"), cancel], "cancelled while it did not run: no student is kept"),
        ([crash, cancel], "cancelled while it did not run: no student is kept"),
    ],
)
def test_a_cancel_says_where_it_keeps_no_student(team: Team, writes: list[Write], reason: str) -> None:
    fence = team.running()
    for write in writes:
        assert team.do(write, fence) is APPLIED
    job, event = team.job(fence.job_id), team.events(fence.job_id)[-1]
    assert (job.status, job.status_reason, event.message) == ("cancelled", reason, reason)


def test_a_cancel_that_keeps_a_student_says_nothing_of_it(team: Team) -> None:
    fence = team.running()
    team.do(cancel, fence)
    team.do(lambda session: jobs.settle_stopped(session, fence, reason="cancel", models=[student(session, fence)]))
    assert team.job(fence.job_id).status_reason == "cancelled by request"


@pytest.mark.parametrize(
    ("trainer_heard", "words"),
    [("preempt", "for a job of high priority"), ("drain", "since its worker takes no more jobs"), ("pause", "by request")],
)
def test_a_job_that_goes_back_to_the_queue_says_what_stopped_it(team: Team, trainer_heard: str, words: str) -> None:
    fence = team.running()
    team.do(lambda session: jobs.settle_stopped(session, fence, reason=trainer_heard))
    assert team.job(fence.job_id).status_reason == f"stopped {words}; goes on from its last checkpoint"


def test_a_cancel_outdoes_a_pause_and_not_the_other_way_round(team: Team) -> None:
    fence = team.running()
    assert team.do(pause, fence) is APPLIED
    assert team.do(cancel, fence) is APPLIED
    assert team.do(pause, fence) is NOT_ALLOWED
    assert team.do(resume, fence) is NOT_ALLOWED
    assert team.job(fence.job_id).stop_requested == "cancel"


def test_a_pause_that_has_not_happened_yet_is_taken_back_by_resume(team: Team) -> None:
    fence = team.running()
    team.do(pause, fence)
    assert team.do(resume, fence) is APPLIED
    assert team.do(resume, fence) is ALREADY
    assert team.do(lambda session: jobs.renew_lease(session, fence, lease_seconds=300)) == jobs.Renewal(None, None)
    assert team.types(fence.job_id)[-2:] == ["job.stop_requested", "job.stop_withdrawn"]


@pytest.mark.parametrize(
    ("trainer_heard", "people_want", "status"),
    [
        ("cancel", "cancel", "cancelled"),
        ("pause", "pause", "paused"),
        ("drain", None, "queued"),
        ("pause", "cancel", "cancelled"),
        ("drain", "cancel", "cancelled"),
        ("drain", "pause", "paused"),
        ("pause", None, "queued"),
    ],
)
def test_a_stopped_job_goes_where_people_want_it_by_now(
    team: Team, trainer_heard: str, people_want: str | None, status: str
) -> None:
    fence = team.running()
    if people_want is not None:
        assert team.do(PEOPLES[people_want], fence) is APPLIED
    assert team.do(lambda session: jobs.settle_stopped(session, fence, reason=trainer_heard)) is APPLIED
    job = team.job(fence.job_id)
    assert (job.status, job.stop_requested, job.stop_keep, job.lease_expires_at, job.devices) == (status, None, None, None, None)
    assert job.crashes == 0


@pytest.mark.parametrize(
    ("max_attempts", "people_want", "status"),
    [
        (2, None, "queued"),
        (2, "pause", "paused"),
        (2, "cancel", "cancelled"),
        (1, None, "failed"),
        (1, "pause", "failed"),
        (1, "cancel", "cancelled"),
    ],
)
def test_a_crash_goes_back_to_the_queue_unless_people_want_otherwise_or_attempts_are_used_up(
    team: Team, max_attempts: int, people_want: str | None, status: str
) -> None:
    fence = team.running(max_attempts=max_attempts)
    if people_want is not None:
        team.do(PEOPLES[people_want], fence)
    assert team.do(crash, fence) is APPLIED
    job = team.job(fence.job_id)
    assert (job.status, job.crashes, job.stop_requested, job.lease_expires_at) == (status, 1, None, None)
    assert (job.error is None) == (status != "failed")


def test_the_last_of_max_attempts_crashes_fails_the_job_with_its_own_code(team: Team) -> None:
    job_id = team.submit(max_attempts=3)
    for attempt, code in enumerate(("worker_lost", "trainer_crashed", "out_of_memory"), start=1):
        fence = team.run()
        assert fence == Fence(job_id, attempt)
        failure = JobFailure(code=code, message=f"crash {attempt}", hint="h", details={"exit_code": -9})
        team.do(lambda session, failure: jobs.crash(session, fence, failure), failure)  # noqa: B023
    job = team.job(job_id)
    assert (job.status, job.status_reason, job.crashes, job.attempt) == ("failed", "crash 3", 3, 3)
    assert job.error == {"code": "out_of_memory", "message": "crash 3", "hint": "h", "details": {"exit_code": -9}}
    codes = [event.data["error"]["code"] for event in team.events(job_id) if "error" in event.data]
    assert codes == ["worker_lost", "trainer_crashed", "out_of_memory"]


def test_a_drain_costs_no_attempt(team: Team) -> None:
    job_id = team.submit(max_attempts=2)
    for write, status in ((stop_for("drain"), "queued"), (lose, "queued"), (crash, "queued"), (crash, "failed")):
        team.do(write, team.run())
        assert team.status(job_id) == status
    assert (team.job(job_id).attempt, team.job(job_id).crashes) == (4, 2)


def test_a_job_keeps_its_age_through_every_return_to_the_queue(team: Team) -> None:
    job_id = team.submit()
    queued_at = team.job(job_id).queued_at
    for attempt, write in enumerate((crash, stop_for("drain"), stop_for("pause")), start=1):
        assert team.run().attempt == attempt
        team.do(write, Fence(job_id, attempt))
    team.do(resume, Fence(job_id, 3))
    assert team.status(job_id) == "queued"
    assert team.job(job_id).queued_at == queued_at


def test_running_time_adds_up_over_attempts_and_gpus_are_charged(team: Team) -> None:
    fence = team.running()
    for attempt, seconds in ((1, 100), (2, 20)):

        def end(session: Session, fence: Fence, seconds: int) -> None:
            session.execute(text("UPDATE jobs SET gpus = 2, started_at = now() - make_interval(secs => :s)"), {"s": seconds})
            crash(session, fence)

        team.do(end, replace(fence, attempt=attempt), seconds)
        team.do(lambda session: session.execute(update(Job).values(gpus=0)))
        if attempt == 1:
            team.run()
    job = team.job(fence.job_id)
    assert (job.run_seconds, job.gpu_seconds) == (120.0, 240.0)
