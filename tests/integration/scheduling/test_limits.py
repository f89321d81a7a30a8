"""What an admin sets for a user: how many of their jobs may run, and wait, at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from service.errors import QueueLimitReached
from service.tables import User
from tests.integration.jobs.test_races import until_somebody_waits
from tests.integration.scheduling.cluster import Cluster


def test_no_more_of_a_users_jobs_run_than_may_and_others_pass(cluster: Cluster) -> None:
    cluster.user("ana", max_running=2)
    cluster.host("cpu-1", slots=4)
    mine = cluster.submit_many(4, "ana")
    other = cluster.submit("ben")
    assert set(cluster.fill()) == {*mine[:2], other}
    words = "one of ana's jobs to end: 2 run or start now, and 2 may"
    cluster.waits({mine[2]: ("user_limit", words), mine[3]: ("user_limit", words)})
    cluster.succeed(mine[0])
    assert cluster.fill() == [mine[2]]


def test_one_that_starts_in_a_moment_counts_for_those_behind_it(cluster: Cluster) -> None:
    cluster.user("ana", max_running=1)
    cluster.host("cpu-1", slots=4)
    first, second = cluster.submit_many(2, "ana")
    cluster.waits(
        {
            first: ("starting", "a moment: cpu:0 of host cpu-1 is free for it"),
            second: ("user_limit", "one of ana's jobs to end: 1 run or start now, and 1 may"),
        }
    )


def test_the_limit_counts_jobs_in_all_pools(cluster: Cluster) -> None:
    cluster.user("ana", max_running=1)
    cluster.host("cpu-1", slots=1)
    cluster.host("lab-1", slots=1, pool="lab")
    here, there = cluster.submit("ana"), cluster.submit("ana", pool="lab")
    assert cluster.fill() == [here]
    assert cluster.place(there).blocker.reason == "user_limit"
    cluster.succeed(here)
    assert cluster.fill() == [there]


def test_a_limit_of_none_keeps_all_of_a_users_jobs_waiting(cluster: Cluster) -> None:
    cluster.user("ana", max_running=0)
    cluster.host("cpu-1", slots=1)
    job_id = cluster.submit("ana")
    assert cluster.fill() == []
    cluster.waits({job_id: ("user_limit", "an admin to raise max_running_jobs of ana, which is 0: none of their jobs may run")})
    cluster.user("ana")
    assert cluster.fill() == [job_id]


def test_a_limit_that_is_lowered_stops_nothing_and_starts_nothing(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=3)
    running = cluster.submit_many(2, "ana")
    cluster.fill()
    cluster.user("ana", max_running=1)
    waits = cluster.submit("ana")
    assert cluster.fill() == []
    cluster.waits({waits: ("user_limit", "one of ana's jobs to end: 2 run or start now, and 1 may")})
    cluster.succeed(running[0])
    assert cluster.fill() == []
    cluster.succeed(running[1])
    assert cluster.fill() == [waits]


def test_a_submission_beyond_the_limit_on_waiting_jobs_is_refused_with_the_remedy(cluster: Cluster) -> None:
    cluster.user("ana", max_queued=2)
    cluster.host("cpu-1", slots=1)
    first, second = cluster.submit("ana"), cluster.submit("ana", preflight=True)
    with pytest.raises(
        QueueLimitReached, match=r"2 of your jobs wait already.*cancel some, or ask an admin for a higher max_queued_jobs"
    ):
        cluster.submit("ana")
    cluster.submit("ben")
    assert cluster.claim("cpu-1") == first, "what runs waits no more"
    cluster.submit("ana")
    with pytest.raises(QueueLimitReached):
        cluster.submit("ana")
    cluster.cancel(second)
    cluster.submit("ana")


def test_a_paused_job_counts_neither_as_running_nor_as_waiting(cluster: Cluster) -> None:
    cluster.user("ana", max_running=1, max_queued=1)
    cluster.host("cpu-1", slots=2)
    first = cluster.submit("ana")
    cluster.fill()
    cluster.pause(first)
    cluster.stop(first)
    second = cluster.submit("ana")
    assert cluster.fill() == [second]
    cluster.resume(first)
    assert cluster.place(first).blocker.reason == "user_limit"


def test_a_pause_is_no_way_around_the_limit_on_waiting_jobs(cluster: Cluster) -> None:
    cluster.user("ana", max_queued=1)
    first = cluster.submit("ana")
    cluster.pause(first)
    second = cluster.submit("ana")
    with pytest.raises(QueueLimitReached):
        cluster.resume(first)
    assert cluster.status(first, second) == ["paused", "queued"]
    cluster.cancel(second)
    cluster.resume(first)
    assert cluster.status(first) == ["queued"]


def test_a_claim_that_finds_a_limit_reached_meanwhile_does_not_hold_on_to_its_owner(cluster: Cluster) -> None:
    """Else two claims, in two pools, could each hold the owner whom the other comes to next."""
    cluster.user("ana", max_running=1)
    cluster.host("here", slots=1)
    cluster.host("there", slots=1, pool="lab")
    cluster.submit("ana")
    cluster.submit("ana", pool="lab")
    with ThreadPoolExecutor(1) as thread, cluster.database.transaction() as session:
        with cluster.database.transaction() as other:
            found = cluster.claim_in(other, cluster.machines["there"])
            assert found is not None
            cluster.machines["there"].running[found.job.id] = found.fence, found.devices
            other.flush()
            later = thread.submit(cluster.claim_in, session, cluster.machines["here"])
            until_somebody_waits(cluster.database, later)
        assert later.result(60) is None
        lock = select(User.id).where(User.name == "ana").with_for_update(nowait=True)
        assert cluster.do(lambda third: third.scalar(lock)) == "user_ana"
