"""Jobs that need other jobs: queued, failed or kept waiting with them."""

from itertools import permutations

import pytest

from service import models
from service.errors import InvalidSpec
from service.ids import new_id
from service.jobs import Fence
from service.lifecycle import Status
from tests.integration.jobs.conftest import (
    Team,
    Write,
    cancel,
    crash,
    fail,
    stop_for,
    succeed,
)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_job_is_queued_by_the_last_success_that_it_needs(team: Team, order: tuple[int, ...]) -> None:
    fences = [team.running() for _ in order]
    job_id = team.submit(depends_on=[fence.job_id for fence in fences])
    for index in order:
        assert team.status(job_id) == "waiting"
        assert team.job(job_id).queued_at is None
        team.do(succeed, fences[index])
    job = team.job(job_id)
    assert (job.status, job.queued_at) == ("queued", team.job(fences[order[-1]].job_id).finished_at)
    assert team.types(job_id) == ["job.waiting", "job.queued"]


def test_a_job_that_needs_nothing_open_is_queued_at_once(team: Team) -> None:
    needed = team.bring_to(Status.SUCCEEDED)
    assert team.status(team.submit(depends_on=[needed.job_id])) == "queued"


def test_a_teacher_that_is_a_job_is_needed_without_being_named_again(team: Team) -> None:
    needed = team.running()
    job_id = team.submit(teacher={"source": f"job:{needed.job_id}"}, depends_on=[needed.job_id])
    assert team.status(job_id) == "waiting"
    team.do(succeed, needed)
    assert team.status(job_id) == "queued"


@pytest.mark.parametrize(("write", "word"), [(fail, "failed"), (stop_for("cancel"), "cancelled")])
def test_a_job_fails_with_what_it_needs(team: Team, write: Write, word: str) -> None:
    needed = team.running()
    job_id = team.submit(depends_on=[needed.job_id])
    team.do(write, needed)
    job = team.job(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["code"], job.error["message"]) == (
        "dependency_failed",
        f"job {needed.job_id}, which it needs, is {word}",
    )


@pytest.mark.parametrize("write", [crash, stop_for("drain"), stop_for("pause")])
def test_a_job_goes_on_waiting_while_what_it_needs_may_still_succeed(team: Team, write: Write) -> None:
    needed = team.running()
    job_id = team.submit(depends_on=[needed.job_id])
    team.do(write, needed)
    assert team.types(job_id) == ["job.waiting"]


def test_a_failure_goes_down_a_chain_and_reaches_each_job_once(team: Team) -> None:
    """A diamond: the last job hears of it along two ways."""
    top = team.running()
    left = team.submit(depends_on=[top.job_id])
    right = team.submit(depends_on=[top.job_id])
    bottom = team.submit(depends_on=[top.job_id, left, right])
    other = team.submit()
    team.do(fail, top)
    for job_id in (left, right, bottom):
        assert team.types(job_id) == ["job.waiting", "job.failed"]
        job, event = team.job(job_id), team.events(job_id)[-1]
        assert event.data["error"] == job.error
        assert event.message == job.status_reason
    assert team.status(other) == "queued"


def test_a_job_that_waits_can_be_cancelled_and_stays_so(team: Team) -> None:
    needed = team.running()
    job_id = team.submit(depends_on=[needed.job_id])
    team.do(cancel, Fence(job_id, 0))
    team.do(succeed, needed)
    assert team.types(job_id) == ["job.waiting", "job.cancelled"]


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_job_that_can_no_longer_succeed_is_not_to_be_needed(team: Team, status: Status) -> None:
    needed = team.bring_to(status)
    before = team.everything()
    with pytest.raises(InvalidSpec, match=needed.job_id):
        team.submit(depends_on=[needed.job_id])
    assert team.everything() == before


def test_a_job_that_does_not_exist_is_not_to_be_needed(team: Team) -> None:
    nobody = new_id("job")
    before = team.everything()
    with pytest.raises(InvalidSpec, match=nobody):
        team.submit(depends_on=[nobody])
    assert team.everything() == before


def test_a_model_says_which_jobs_waited_for_it(team: Team) -> None:
    needed = team.running()
    source = f"job:{needed.job_id}"
    waits = team.submit(teacher={"source": source})
    student = team.submit(student={"source": source}, teacher=[{"source": source}, {"source": "hub:anna/digits"}])
    team.submit(teacher={"source": f"{source}/teacher"})
    team.submit(depends_on=[needed.job_id])
    team.do(lambda session: succeed(session, needed))
    later = team.submit(teacher={"source": source})
    (left,), _ = team.do(lambda session: models.page(session, after=None, limit=10))
    assert (left.num_uses, left.used_by) == (3, sorted([waits, student, later], reverse=True))
