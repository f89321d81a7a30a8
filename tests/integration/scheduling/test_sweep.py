"""The sweep: jobs of silent workers are queued again, once each, whoever else sweeps or settles them at the same moment."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.orm import Session

from service import jobs, scheduling, workers
from service.jobs import MAX_LOSSES
from service.lifecycle import Status
from service.preflight import claim_check
from service.scheduling import Device, Offer, claim
from service.tables import Job, Sweep
from tests.integration.jobs.conftest import Team, Write, cancel, checkpoint, fail, pause, succeed
from tests.integration.scheduling.conftest import lose, sweep

CPU = Offer("worker_1", "default", (Device("cpu:0"),))


def test_a_lost_job_is_queued_again_without_its_worker(team: Team) -> None:
    fence = team.running(max_attempts=2)
    lose(team, fence)
    assert team.do(sweep) is True
    job = team.job(fence.job_id)
    assert (job.status, job.attempt, job.crashes, job.lease_expires_at, job.devices) == ("queued", 1, 0, None, None)
    event = team.events(fence.job_id)[-1]
    assert (event.type, event.data["error"]["code"]) == ("job.queued", "worker_lost")
    assert "worker_1" in event.message


def lost_so_often(team: Team, times: int) -> str:
    job_id = team.submit(max_attempts=1)
    team.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(losses=times)))
    return job_id


def test_a_job_that_ends_all_its_hosts_fails_as_worker_lost_and_takes_along_what_needs_it(team: Team) -> None:
    job_id = lost_so_often(team, MAX_LOSSES - 2)
    needing = team.submit(depends_on=[job_id])
    for status in ("queued", "failed"):
        lose(team, team.run())
        team.do(sweep)
        assert team.status(job_id) == status
    job = team.job(job_id)
    assert job.crashes == 0
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert job.error["message"].startswith(f"{MAX_LOSSES} attempts in a row were lost")
    assert team.do(lambda session: claim(session, CPU, lease_seconds=300)) is None
    assert team.job(needing).error["code"] == "dependency_failed"  # type: ignore[index]


def test_a_new_checkpoint_forgets_the_losses_before_it(team: Team) -> None:
    job_id = lost_so_often(team, MAX_LOSSES - 1)
    fence = team.run()
    team.do(checkpoint, fence)
    lose(team, fence)
    team.do(sweep)
    job = team.job(job_id)
    assert (job.status, job.losses) == ("queued", 1)


@pytest.mark.parametrize(("ask", "status"), [(cancel, "cancelled"), (pause, "paused")])
def test_what_was_asked_of_a_lost_job_happens_all_the_same(team: Team, ask: Write, status: str) -> None:
    fence = team.running()
    team.do(ask, fence)
    lose(team, fence)
    team.do(sweep)
    assert team.status(fence.job_id) == status


def test_a_lease_that_lasts_is_left_alone(team: Team) -> None:
    for status in sorted(Status, key=lambda status: status is Status.QUEUED):  # a queued one would be claimed for the next
        team.bring_to(status)
    before = team.everything()
    assert team.do(sweep) is True
    assert team.everything() == before


def test_a_second_sweep_finds_nothing_to_do(team: Team) -> None:
    lose(team, team.running(), team.running())
    team.do(sweep)
    before = team.everything()
    team.do(sweep)
    assert team.everything() == before


def test_a_sweep_beside_another_leaves_the_work_to_it(team: Team) -> None:
    fence = team.running()
    lose(team, fence)
    with team.database.transaction() as session:
        assert sweep(session) is True
        assert team.do(sweep) is False
    assert team.job(fence.job_id).losses == 1


def test_many_sweeps_at_once_take_each_lost_job_once(team: Team) -> None:
    fences = [team.running(max_attempts=2) for _ in range(12)]
    lose(team, *fences)
    barrier = Barrier(8)

    def sweep_at_once(_: int) -> bool:
        with team.database.transaction() as session:
            session.connection()
            barrier.wait(60)
            return sweep(session)

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(sweep_at_once, range(8)))
    for fence in fences:
        assert team.job(fence.job_id).losses == 1
        assert team.types(fence.job_id) == ["job.queued", "job.running", "job.queued"]


def test_a_lost_job_whose_worker_is_at_its_end_just_now_is_that_workers(team: Team) -> None:
    """The sweep passes over a row that is locked: its attempt may be succeeding at this moment."""
    fence = team.running()
    lose(team, fence)
    with team.database.transaction() as session:
        succeed(session, fence)
        session.flush()
        assert team.do(sweep) is True
    assert team.types(fence.job_id) == ["job.queued", "job.running", "job.succeeded"]


def test_a_worker_that_comes_back_after_the_sweep_has_lost_the_job(team: Team) -> None:
    fence = team.running()
    lose(team, fence)
    team.do(sweep)
    again = team.run()
    assert team.do(lambda session: jobs.renew_lease(session, fence, lease_seconds=300)) is None
    assert team.do(fail, fence) == "lease_lost"
    assert team.do(succeed, again) == "applied"


def test_a_late_heartbeat_before_the_sweep_saves_the_attempt(team: Team) -> None:
    fence = team.running()
    lose(team, fence)
    assert team.do(lambda session: jobs.renew_lease(session, fence, lease_seconds=300)) is not None
    team.do(sweep)
    assert team.status(fence.job_id) == "running"


def test_of_many_processes_one_takes_the_turn(team: Team) -> None:
    def turn(every_seconds: float) -> bool:
        return team.do(lambda session: scheduling.claim_sweep(session, every_seconds=every_seconds, lease_seconds=45))

    assert [turn(60), turn(60), turn(0), turn(60)] == [True, False, True, False]
    team.do(lambda session: session.execute(update(Sweep).values(began_at=text("now() + interval '1 day'"))))
    assert [turn(60), turn(60)] == [True, False], "a clock that was ahead holds up nothing"


@pytest.mark.parametrize(("seconds", "status"), [(5, "queued"), (60, "running")])
def test_the_first_sweep_after_an_outage_leaves_every_worker_a_term_to_renew_its_leases(
    team: Team, seconds: float, status: str
) -> None:
    checked = team.submit(preflight=True)
    check = team.do(lambda session: claim_check(session, "worker_1", "default", lease_seconds=45))
    assert check is not None
    fence = team.running()
    lose(team, fence, check.fence)
    before = text(f"now() - interval '{seconds} seconds'")
    team.do(lambda session: session.execute(insert(Sweep).values(id=1, began_at=before)))
    assert team.do(lambda session: scheduling.claim_sweep(session, every_seconds=2, lease_seconds=45)) is True
    team.do(sweep)
    assert team.status(fence.job_id) == status
    assert (team.job(checked).lease_expires_at is not None) is (status == "running")


def test_after_an_outage_a_lease_whose_row_is_locked_for_a_moment_gets_its_term_too(team: Team) -> None:
    def turn() -> bool:
        return team.do(lambda session: scheduling.claim_sweep(session, every_seconds=2, lease_seconds=45))

    fence = team.running()
    lose(team, fence)
    team.do(lambda session: session.execute(insert(Sweep).values(id=1, began_at=text("now() - interval '60 seconds'"))))
    with team.database.transaction() as session:
        jobs.get(session, fence.job_id, lock=True)
        assert turn() is False, "a sweep would end it as soon as it is not locked any more"
    assert turn() is True
    team.do(sweep)
    assert team.status(fence.job_id) == "running"


def test_a_claim_that_has_a_job_which_a_host_was_kept_for_is_not_waited_for(team: Team) -> None:
    """It may be waiting for what the sweep has locked."""
    worker, job_id = "worker_1", team.submit()
    team.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(reserved_worker_id=worker)))
    team.do(workers.deregister, worker)
    with team.database.transaction() as session:
        jobs.get(session, job_id, lock=True)

        def sweep_without_waiting(other: Session) -> bool:
            other.execute(text("SET LOCAL lock_timeout = '1ms'"))
            return sweep(other)

        assert team.do(sweep_without_waiting) is True
    assert team.job(job_id).reserved_worker_id == worker
    team.do(sweep)
    assert team.job(job_id).reserved_worker_id is None
