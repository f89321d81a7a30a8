"""Who is checked next, and how what a check found decides where a job waits."""

from typing import Any

import pytest

from service.preflight import MAX_CHECKS, Check, claim_check, give_up_check, pass_check
from tests.integration.scheduling.cluster import HOUR, Cluster
from tests.integration.scheduling.oracle import LEASE_SECONDS

FOUND: dict[str, Any] = {"memory_gib": 20.5, "memory_by_training_gib": {"student": 20.5}, "notes": []}


def take(cluster: Cluster, host: str = "gpu-1") -> Check | None:
    return cluster.do(lambda session: claim_check(session, host, "default", lease_seconds=LEASE_SECONDS))


def check(cluster: Cluster, estimate: dict[str, Any] = FOUND) -> str:
    taken = take(cluster)
    assert taken is not None
    cluster.do(lambda session: pass_check(session, taken.fence, estimate, memory_seconds=600))
    return taken.job.id


def test_a_job_is_in_no_queue_before_it_is_checked(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1, memory=80.0)
    job_id = cluster.submit(gpus=1, preflight=True)
    assert cluster.fill() == []
    assert check(cluster) == job_id
    assert cluster.fill() == [job_id]


def test_of_a_hundred_jobs_and_one_posted_at_the_same_moment_the_one_is_checked_second_and_starts_next(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2, memory=80.0)
    hundred = cluster.submit_many(100, "ana", gpus=1, preflight=True)
    one = cluster.submit("ben", gpus=1, preflight=True)
    checked = [check(cluster), check(cluster), check(cluster)]
    assert set(checked[:2]) == {hundred[0], one}
    assert checked[2] == hundred[1]
    assert cluster.fill() == [hundred[0], one]


@pytest.mark.parametrize("gpus", [1, 4, 8])
def test_the_one_is_checked_second_too_where_each_job_starts_once_it_is_checked(cluster: Cluster, gpus: int) -> None:
    cluster.host("gpu-1", gpus=gpus, memory=80.0)
    hundred = cluster.submit_many(20, "ana", gpus=1, preflight=True)
    one = cluster.submit("ben", gpus=1, preflight=True)
    checked, started = [], []
    for _ in range(gpus + 2):
        checked.append(check(cluster))
        started += cluster.fill()
    assert checked[:2] == [hundred[0], one]
    if gpus > 1:
        assert started[:2] == [hundred[0], one]
    else:
        cluster.forward(HOUR)
        cluster.succeed(hundred[0])
        assert cluster.fill() == [one]


def test_of_the_checks_that_run_at_once_one_is_the_others(cluster: Cluster) -> None:
    cluster.submit_many(5, "ana", gpus=1, preflight=True)
    one = cluster.submit("ben", gpus=1, preflight=True)
    checks = [take(cluster) for _ in range(2)]
    assert one in {each.job.id for each in checks if each is not None}


def test_the_better_priority_is_checked_first(cluster: Cluster) -> None:
    normal, high = cluster.submit(preflight=True), cluster.submit("ben", priority="high", preflight=True)
    assert [check(cluster, {"memory_gib": None}) for _ in range(2)] == [high, normal]
    assert take(cluster) is None


def test_it_waits_for_gpus_that_hold_what_was_found(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2, memory=[16.0, 80.0])
    job_id = cluster.submit(gpus=1, preflight=True)
    busy = cluster.submit("cem", gpus=1, min_gpu_memory_gib=40)
    cluster.fill()
    check(cluster)
    assert cluster.fill() == []
    cluster.waits({job_id: ("devices", "a GPU of 21 GiB or more: host gpu-1 has 0 free until about 03 Mar 08:00 UTC")})
    cluster.succeed(busy)
    assert cluster.fill() == [job_id]
    assert cluster.job(job_id).devices == ["cuda:1"]


def test_what_would_fit_on_no_host_fails_with_a_remedy(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1, memory=16.0)
    job_id = cluster.submit(gpus=1, preflight=True)
    check(cluster)
    error = cluster.job(job_id).error
    assert error is not None
    assert error["code"] == "preflight_failed"
    assert "needs about 20.5 GiB on its GPU, and the largest of pool 'default' has 16 GiB" in error["message"]
    assert "batch_size" in error["hint"]


def test_after_so_many_checks_that_came_to_nothing_it_goes_on_unchecked(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit(gpus=1, preflight=True)
    for number in range(1, MAX_CHECKS + 1):
        taken = take(cluster)
        assert taken is not None
        assert taken.fence.check == number
        cluster.do(lambda session, fence=taken.fence: give_up_check(session, fence, "its host is full"))
        cluster.forward(60)
        cluster.sweep()
    assert cluster.fill() == [job_id]
    assert "job.unchecked" in cluster.types(job_id)


def test_a_check_whose_worker_fell_silent_is_repeated_by_another_and_the_first_is_told(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit(gpus=1, preflight=True)
    lost = take(cluster)
    assert lost is not None
    assert take(cluster) is None
    cluster.forward(LEASE_SECONDS + 1)
    cluster.sweep()
    again = take(cluster, "gpu-2")
    assert again is not None
    assert again.job.id == job_id
    assert cluster.do(lambda session: pass_check(session, lost.fence, FOUND, memory_seconds=600)) == "lease_lost"
    assert cluster.do(lambda session: pass_check(session, again.fence, FOUND, memory_seconds=600)) == "applied"
