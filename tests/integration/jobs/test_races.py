"""Two transactions on one job at once: one is applied, and the other reads what the first has left."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import Any, TypeVar

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from service import jobs
from service.database import Database
from service.errors import Conflict, InvalidSpec, QueueLimitReached
from service.jobs import Fence
from service.lifecycle import Outcome, Status
from service.scheduling import Device, Offer, claim
from service.spec import parse_spec
from service.tables import JobTeacher, Model, User
from tests.integration.jobs.conftest import (
    APPLIED,
    ENDS_ATTEMPT,
    FENCED,
    LEASE_LOST,
    NOT_ALLOWED,
    SPEC,
    Team,
    Write,
    cancel,
    fail,
    succeed,
)

T = TypeVar("T")


def overlap(team: Team, first: Callable[[Session], T], second: Callable[[Session], T]) -> tuple[T, "Future[T]"]:
    """Runs the first in a transaction that commits only once the second waits for it; returns an answer and a future."""
    with ThreadPoolExecutor(1) as pool:
        with team.database.transaction() as session:
            answer = first(session)
            session.flush()
            later = pool.submit(team.do, second)
            until_somebody_waits(team.database, later)
        later.exception(timeout=60)
        return answer, later


def until_somebody_waits(database: Database, other: "Future[Any]") -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(text(waiting)):
            assert not other.done(), f"it did not wait: {other}"
            time.sleep(0.005)


def at_once(team: Team, fence: Fence, *writes: Write) -> list[Outcome]:
    """Answers of transactions that start together, each in a thread of its own."""
    barrier = Barrier(len(writes))

    def one(write: Write) -> Outcome:
        with team.database.transaction() as session:
            session.connection()
            barrier.wait(60)
            return write(session, fence)

    with ThreadPoolExecutor(len(writes)) as pool:
        return list(pool.map(one, writes))


@pytest.mark.parametrize(("first", "second"), list(pairwise([*ENDS_ATTEMPT, next(iter(ENDS_ATTEMPT))])))
def test_of_two_ends_of_an_attempt_the_first_wins_and_the_second_has_lost_the_lease(team: Team, first: str, second: str) -> None:
    fence = team.running()
    answer, later = overlap(team, lambda s: FENCED[first](s, fence), lambda s: FENCED[second](s, fence))
    assert (answer, later.result()) == (APPLIED, LEASE_LOST)
    assert team.status(fence.job_id) == ENDS_ATTEMPT[first]
    assert team.types(fence.job_id) == ["job.queued", "job.running", f"job.{ENDS_ATTEMPT[first]}"]


def test_a_cancel_that_comes_while_a_success_commits_is_refused(team: Team) -> None:
    fence = team.running()
    answer, later = overlap(team, lambda s: succeed(s, fence), lambda s: cancel(s, fence))
    assert (answer, later.result()) == (APPLIED, NOT_ALLOWED)
    assert team.status(fence.job_id) == "succeeded"


def test_a_success_that_comes_after_a_cancel_was_asked_for_stands(team: Team) -> None:
    fence = team.running()
    answer, later = overlap(team, lambda s: cancel(s, fence), lambda s: succeed(s, fence))
    assert (answer, later.result()) == (APPLIED, APPLIED)
    job = team.job(fence.job_id)
    assert (job.status, job.stop_requested) == ("succeeded", None)


def test_of_many_ends_at_once_exactly_one_is_applied(team: Team) -> None:
    for _ in range(5):
        fence = team.running()
        writes = [FENCED[name] for name in ENDS_ATTEMPT] + [succeed, fail]
        answers = at_once(team, fence, *writes)
        assert sorted(answers) == [APPLIED] + [LEASE_LOST] * (len(writes) - 1)
        types = team.types(fence.job_id)
        assert len(types) == 3
        team.do(cancel, fence)  # so that the next claim takes the next job


def test_a_cancel_and_a_success_at_once_leave_one_end_and_a_true_answer(team: Team) -> None:
    for _ in range(10):
        fence = team.running()
        cancelled, succeeded = at_once(team, fence, cancel, succeed)
        assert succeeded is APPLIED
        assert cancelled in {APPLIED, NOT_ALLOWED}
        types = team.types(fence.job_id)
        assert types[-1] == "job.succeeded"
        assert ("job.stop_requested" in types) == (cancelled is APPLIED)


def test_a_cancel_that_meets_a_claim_stops_the_attempt(team: Team) -> None:
    job_id = team.submit()
    claimed, later = overlap(
        team,
        lambda session: claim(session, Offer("worker_1", "default", (Device("cpu:0"),)), lease_seconds=300) is not None,
        lambda session: cancel(session, Fence(job_id, 0)) is APPLIED,
    )
    assert (claimed, later.result()) == (True, True)
    job = team.job(job_id)
    assert (job.status, job.stop_requested) == ("running", "cancel")


def test_claims_of_one_pool_wait_for_each_other_and_not_for_those_of_another(team: Team) -> None:
    first, second = team.submit(), team.submit()
    elsewhere = team.submit(owner="ben", resources={"pool": "lab"})

    def take(session: Session) -> str:
        found = claim(session, Offer("worker_1", "default", (Device("cpu:0"),)), lease_seconds=300)
        assert found is not None
        return found.fence.job_id

    def take_while_the_lab_does(session: Session) -> str:
        taken = take(session)
        assert team.run(pool="lab").job_id == elsewhere
        return taken

    answer, later = overlap(team, take_while_the_lab_does, take)
    assert (answer, later.result()) == (first, second)


def test_two_last_needs_that_succeed_at_once_queue_the_job_once(team: Team) -> None:
    fences = [team.running(), team.running()]
    job_id = team.submit(depends_on=[fence.job_id for fence in fences])
    answer, later = overlap(team, lambda s: succeed(s, fences[0]), lambda s: succeed(s, fences[1]))
    assert (answer, later.result()) == (APPLIED, APPLIED)
    assert team.types(job_id) == ["job.waiting", "job.queued"]


def test_a_job_that_is_submitted_while_its_need_fails_is_refused(team: Team) -> None:
    needed = team.running()
    _, later = overlap(team, lambda s: fail(s, needed).value, lambda s: submit_after(s, needed.job_id))
    assert isinstance(later.exception(), InvalidSpec)


def test_a_need_that_fails_while_a_job_is_submitted_takes_it_along(team: Team) -> None:
    needed = team.running()
    job_id, later = overlap(team, lambda s: submit_after(s, needed.job_id), lambda s: fail(s, needed).value)
    assert later.result() == "applied"
    assert team.types(job_id) == ["job.waiting", "job.failed"]


def test_of_two_resumes_at_once_one_takes_the_last_place_that_the_limit_leaves(team: Team) -> None:
    paused = [paused_one(team), paused_one(team)]
    limit_queued(team, 1)
    (_, outcome), later = overlap(team, lambda s: jobs.resume(s, paused[0]), lambda s: jobs.resume(s, paused[1]))
    assert outcome is APPLIED
    assert isinstance(later.exception(), QueueLimitReached)
    assert [team.status(job_id) for job_id in paused] == ["queued", "paused"]


def test_of_two_submissions_at_once_one_takes_the_last_place_that_the_limit_leaves(team: Team) -> None:
    limit_queued(team, 1)
    job_id, later = overlap(team, submit_plain, submit_plain)
    assert isinstance(later.exception(), QueueLimitReached)
    assert team.status(job_id) == "queued"


def test_a_resume_and_the_submission_of_a_job_that_needs_it_wait_for_each_other_in_one_order(team: Team) -> None:
    needed = paused_one(team)
    limit_queued(team, 2)
    with ThreadPoolExecutor(1) as pool, team.database.transaction() as session:
        jobs.get(session, needed, lock=True)  # as the request does, to see whose it is
        later = pool.submit(team.do, lambda session: submit_after(session, needed))
        until_somebody_waits(team.database, later)
        assert jobs.resume(session, needed)[1] is APPLIED
    assert team.status(later.result(timeout=60)) == "waiting"


def test_a_need_that_fails_while_an_unchecked_job_is_renamed_takes_it_along(team: Team) -> None:
    needed = team.running()
    unchecked = team.submit(preflight=True, depends_on=[needed.job_id])
    last = team.submit(depends_on=[unchecked])
    _, later = overlap(team, lambda s: jobs.edit(s, unchecked, name="another"), lambda s: fail(s, needed).value)
    assert later.result() == "applied"
    assert [team.status(job_id) for job_id in (unchecked, last)] == ["failed", "failed"]
    assert team.job(unchecked).status_reason == f"job {needed.job_id}, which it needs, is failed"


def test_a_student_is_not_deleted_under_a_job_that_is_being_submitted(team: Team) -> None:
    needed = team.bring_to(Status.SUCCEEDED)
    with team.database.transaction() as session:
        model_id = session.scalars(select(Model.id)).one()

    def submit_with_teacher(session: Session) -> object:
        spec = parse_spec(SPEC | {"teacher": {"source": f"model:{model_id}"}})
        return jobs.submit(session, owner_id="user_ana", spec=spec).id

    job_id, later = overlap(team, submit_with_teacher, lambda s: jobs.remove(s, needed.job_id))
    assert isinstance(later.exception(), Conflict)
    with team.database.transaction() as session:
        assert session.scalars(select(JobTeacher.model_id).where(JobTeacher.job_id == job_id)).all() == [model_id]


def paused_one(team: Team) -> str:
    """A job that was taken out of the queue before it started."""
    job_id = team.submit()
    team.do(jobs.request_pause, job_id)
    return job_id


def limit_queued(team: Team, limit: int) -> None:
    team.do(lambda session: session.execute(update(User).where(User.name == "ana").values(max_queued_jobs=limit)))


def submit_plain(session: Session) -> str:
    return jobs.submit(session, owner_id="user_ana", spec=parse_spec(SPEC)).id


def submit_after(session: Session, needed: str) -> str:
    return jobs.submit(session, owner_id="user_ana", spec=parse_spec(SPEC | {"depends_on": [needed]})).id
