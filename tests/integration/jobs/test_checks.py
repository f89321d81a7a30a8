"""A job's check, as its row sees it: who checks what, what comes of it, and what no host of its pool could hold."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from service import jobs, preflight
from service.jobs import MAX_LOSSES, Fence
from service.lifecycle import Outcome, Status
from service.preflight import MAX_CHECKS, Check, CheckFence
from service.tables import Job
from tests.integration.jobs.conftest import FAILURE, Team, cancel, fail, stop_for

WEEK = timedelta(weeks=1).total_seconds()


def estimate(memory_gib: float | None, **by_training: float) -> dict[str, Any]:
    return {"memory_gib": memory_gib, "memory_by_training_gib": by_training or {"student": memory_gib}, "notes": [], "steps": {}}


def take(team: Team) -> Check | None:
    return team.do(lambda session: preflight.claim_check(session, "worker_1", "default", lease_seconds=180))


def taken(team: Team, **changes: Any) -> CheckFence:
    """A new job that is being checked."""
    job_id = team.submit(preflight=True, **changes)
    fence = taken_again(team)
    assert fence.job_id == job_id
    return fence


def taken_again(team: Team) -> CheckFence:
    check = take(team)
    assert check is not None
    return check.fence


def fall_silent(team: Team, fence: CheckFence) -> None:
    """The worker that checks it, for longer than its lease."""
    passed_by = text("now() - interval '1 microsecond'")
    team.do(lambda session: session.execute(update(Job).where(Job.id == fence.job_id).values(lease_expires_at=passed_by)))


def passed(team: Team, found: dict[str, Any], **resources: Any) -> Job:
    """A job after a check that found this."""
    fence = taken(team, resources=resources)
    assert team.do(lambda session: preflight.pass_check(session, fence, found, memory_seconds=WEEK)) is Outcome.APPLIED
    return team.job(fence.job_id)


def add_host(team: Team, name: str, *memories: float | None, kind: str = "cuda") -> None:
    devices = [{"name": f"{kind}:{index}", "kind": kind, "memory_gib": memory} for index, memory in enumerate(memories)]
    team.do(lambda session: team.add_worker(session, name, devices=devices))


# ------------------------------------------------------------ who checks what


def test_a_hundred_jobs_of_one_user_do_not_keep_another_from_the_check(team: Team) -> None:
    many = [team.submit(preflight=True) for _ in range(3)]
    one = team.submit(owner="ben", preflight=True)
    order = []
    for _ in range(4):
        check = take(team)
        assert check is not None
        order.append(check.fence.job_id)
        team.do(lambda session, fence=check.fence: preflight.pass_check(session, fence, estimate(None), memory_seconds=WEEK))
    assert order == [many[0], one, *many[1:]]
    assert take(team) is None


def test_of_one_user_the_more_urgent_job_is_checked_first(team: Team) -> None:
    team.submit(preflight=True, priority="low")
    urgent = team.submit(preflight=True)
    check = take(team)
    assert check is not None
    assert check.fence.job_id == urgent


def test_a_check_that_comes_to_nothing_is_repeated_and_then_left_out(team: Team) -> None:
    job_id = team.submit(preflight=True)
    for number in range(1, MAX_CHECKS + 1):
        assert team.status(job_id) == Status.CHECKING
        check = take(team)
        assert check is not None
        assert check.fence == CheckFence(job_id, number)
        team.do(preflight.give_up_check, check.fence, "it took too long")
    assert team.status(job_id) == Status.QUEUED
    assert "it took too long; it goes on unchecked" in team.events(job_id)[-2].message


def test_a_check_that_its_worker_could_not_make_does_not_count(team: Team) -> None:
    job_id = team.submit(preflight=True)
    for _ in range(MAX_CHECKS):
        team.do(preflight.give_back_check, taken_again(team), "its worker drains")
        fall_silent(team, taken_again(team))
        team.do(preflight.expire_checks)
    assert team.status(job_id) == Status.CHECKING
    assert (team.job(job_id).checks, team.job(job_id).failed_checks) == (2 * MAX_CHECKS, 0)


def lose_by_silence(team: Team, fence: CheckFence) -> None:
    fall_silent(team, fence)
    team.do(preflight.expire_checks)


def give_back(team: Team, fence: CheckFence) -> None:
    team.do(preflight.give_back_check, fence, "its process was told to end")


@pytest.mark.parametrize("lose", [lose_by_silence, give_back])
def test_a_job_that_ends_whatever_checks_it_goes_on_unchecked(team: Team, lose: Callable[[Team, CheckFence], None]) -> None:
    job_id = team.submit(preflight=True)
    team.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(losses=MAX_LOSSES - 1)))
    lose(team, taken_again(team))
    job = team.job(job_id)
    assert (job.status, job.losses) == (Status.QUEUED, 0)


def test_a_check_whose_worker_fell_silent_is_anothers_and_what_the_first_says_later_is_nothing(team: Team) -> None:
    late = taken(team)
    assert team.do(preflight.expire_checks) == 0
    fall_silent(team, late)
    assert team.do(preflight.expire_checks) == 1
    assert "fell silent" in team.job(late.job_id).status_reason
    again = take(team)
    assert again is not None
    for write in (
        lambda session: preflight.pass_check(session, late, estimate(None), memory_seconds=WEEK),
        lambda session: preflight.refuse_check(session, late, FAILURE),
        lambda session: preflight.give_up_check(session, late, "late"),
    ):
        assert team.do(write) is Outcome.LEASE_LOST
    assert team.status(late.job_id) == Status.CHECKING
    assert team.do(preflight.refuse_check, again.fence, FAILURE) is Outcome.APPLIED
    assert team.job(late.job_id).error == FAILURE.model_dump(mode="json")


def test_a_job_that_is_cancelled_while_it_is_checked_stays_cancelled(team: Team) -> None:
    fence = taken(team)
    team.do(lambda session: cancel(session, Fence(fence.job_id, 0)))
    found = estimate(None)
    assert team.do(lambda session: preflight.pass_check(session, fence, found, memory_seconds=WEEK)) is Outcome.LEASE_LOST
    assert team.status(fence.job_id) == Status.CANCELLED


def test_a_checked_job_waits_for_the_jobs_that_it_needs(team: Team) -> None:
    needed = team.submit()
    fence = taken(team, depends_on=[needed])
    team.do(lambda session: preflight.pass_check(session, fence, estimate(None), memory_seconds=WEEK))
    assert (team.status(fence.job_id), team.job(fence.job_id).status_reason) == (Status.WAITING, f"waits for {needed}")


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
@pytest.mark.parametrize("checked", ["not yet", "now", "to the end"])
def test_a_job_fails_with_one_that_it_needs_wherever_its_check_is(team: Team, status: Status, checked: str) -> None:
    needed = team.running()
    if checked == "not yet":
        fence = CheckFence(team.submit(preflight=True, depends_on=[needed.job_id]), 0)
    else:
        fence = taken(team, depends_on=[needed.job_id])
    end = fail if status is Status.FAILED else stop_for("cancel")
    if checked == "to the end":
        with team.database.transaction() as session:
            job = jobs.get(session, fence.job_id, lock=True)
            team.do(end, needed)  # which waits for nobody
            assert team.status(fence.job_id) == "checking"
            jobs.enter_queue(session, job)
    else:
        team.do(end, needed)
    found = estimate(None)
    assert team.do(lambda session: preflight.pass_check(session, fence, found, memory_seconds=WEEK)) is Outcome.LEASE_LOST
    job = team.job(fence.job_id)
    assert (job.status, job.lease_expires_at) == ("failed", None)
    assert job.error is not None
    assert (job.error["code"], job.error["message"]) == (
        "dependency_failed",
        f"job {needed.job_id}, which it needs, is {status}",
    )


# ------------------------------------------------------------ what no host could hold


@pytest.mark.parametrize(
    ("hosts", "gpus", "needs", "largest"),
    [
        ([[24.0]], 1, 24.5, 24.0),
        ([[24.0], [16.0, 16.0]], 2, 20.0, 16.0),
        ([[80.0], [80.0, 24.0], [40.0, 40.0]], 2, 50.0, 40.0),
    ],
)
def test_what_no_host_could_hold_is_refused_with_figures_and_a_remedy(
    team: Team, hosts: list[list[float]], gpus: int, needs: float, largest: float
) -> None:
    for index, memories in enumerate(hosts):
        add_host(team, f"gpus_{index}", *memories)
    job = passed(team, estimate(needs, teacher=1.0, student=needs), gpus=gpus)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "preflight_failed"
    assert f"training the student needs about {needs:.1f} GiB" in job.error["message"]
    assert f"{largest:g} GiB" in job.error["message"]
    assert "gradient_accumulation" in job.error["hint"]
    assert job.error["details"] == {"pointer": "/training/batch_size", "estimated_gib": needs, "largest_gib": largest}


@pytest.mark.parametrize(
    ("parts", "remedy"),
    [
        ({"teachers": 28.0, "activations": 2.0}, "smaller dtype"),
        ({"optimizer": 20.0, "weights": 10.0}, "adamw-8bit"),
        ({"activations": 29.0, "device": 1.0}, "micro_batch"),
    ],
)
def test_a_refusal_for_memory_says_what_takes_it_and_what_makes_that_smaller(
    team: Team, parts: dict[str, float], remedy: str
) -> None:
    add_host(team, "gpus", 24.0)
    job = passed(team, estimate(30.0, student=30.0) | {"memory_parts_gib": {"student": parts}}, gpus=1)
    assert job.error is not None
    assert f"({', '.join(f'{part} {size:.1f}' for part, size in parts.items())})" in job.error["message"]
    assert remedy in job.error["hint"]


def test_a_refusal_is_at_the_training_that_takes_the_most(team: Team) -> None:
    add_host(team, "gpus", 24.0)
    for role, pointer in {"teacher": "/teacher/training/batch_size", "teacher-2": "/teacher/1/training/batch_size"}.items():
        job = passed(team, estimate(30.0, **{role: 30.0, "student": 3.0}), gpus=1)
        assert job.error is not None
        assert job.error["details"]["pointer"] == pointer


@pytest.mark.parametrize(
    ("hosts", "gpus", "needs", "asks"),
    [
        ([[24.0], [80.0]], 1, 10.2, 11.0),
        ([[79.6]], 1, 79.3, 80.0),
        ([[80.0, 79.6]], 2, 79.3, 80.0),
        ([], 1, 30.5, 31.0),
        ([[24.0], [None]], 1, 30.5, None),
    ],
)
def test_a_job_that_names_no_memory_asks_for_what_it_needs_where_workers_tell_theirs(
    team: Team, hosts: list[list[float | None]], gpus: int, needs: float, asks: float | None
) -> None:
    for index, memories in enumerate(hosts):
        add_host(team, f"gpus_{index}", *memories)
    job = passed(team, estimate(needs), gpus=gpus)
    assert (job.status, job.min_gpu_memory_gib) == (Status.QUEUED, asks)
    assert job.resource_class == f"gpu:{gpus}:{asks or 0:.0f}"


def test_a_job_that_asks_for_less_memory_than_it_needs_is_warned(team: Team) -> None:
    add_host(team, "gpus", 80.0)
    job = passed(team, estimate(30.26), gpus=1, min_gpu_memory_gib=20)
    assert (job.status, job.min_gpu_memory_gib) == (Status.QUEUED, 20)
    assert job.estimate is not None
    (note,) = job.estimate["notes"]
    assert note.startswith("It needs about 30.3 GiB on each GPU, and asks for 20")
    assert "job.warning" in team.types(job.id)


def test_a_job_on_cpus_is_refused_where_all_its_processes_take_more_than_any_host_has(team: Team) -> None:
    add_host(team, "cpus", 32.0, 32.0, kind="cpu")
    assert passed(team, estimate(15.9), cpu_slots=2).status == Status.QUEUED
    job = passed(team, estimate(16.1), cpu_slots=2)
    assert job.error is not None
    assert "16.1 GiB in each of 2 processes, and the largest host of pool 'default' has 32 GiB" in job.error["message"]
    assert passed(team, estimate(16.1)).status == Status.QUEUED
