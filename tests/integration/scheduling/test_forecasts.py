"""When a waiting job should start: p50 and p90 of the policy run ahead, by measured steps and by what such jobs took before."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.integration.scheduling.cluster import HOUR, Cluster


def past(cluster: Cluster, seconds: Sequence[float], owner: str = "ana", **changes: Any) -> None:
    """Jobs of that size took so long."""
    host = cluster.host(f"past-{owner}", gpus=1)
    for each in seconds:
        job_id = cluster.submit(owner, **changes)
        assert cluster.claim(host) == job_id
        cluster.forward(each)
        cluster.succeed(job_id)
    cluster.end(host)


def start(cluster: Cluster, job_id: str) -> tuple[datetime, datetime] | None:
    found = cluster.place(job_id).start
    return None if found is None else (found.p50, found.p90)


def hours(cluster: Cluster, job_id: str) -> tuple[float, float]:
    found = start(cluster, job_id)
    assert found is not None
    return (found[0] - cluster.now) / timedelta(hours=1), (found[1] - cluster.now) / timedelta(hours=1)


def test_what_fits_now_starts_now(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id, next_one = cluster.submit_many(2, "ana", gpus=1)
    assert start(cluster, job_id) == (cluster.now, cluster.now)
    assert start(cluster, next_one) is None, "nobody knows how long such a job takes"


def test_by_measured_steps_of_what_runs(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    running = cluster.submit("ana", gpus=1)
    cluster.fill()
    waits = cluster.submit("ana", gpus=1)
    assert start(cluster, waits) is None, "it may end at any time until its limit"
    cluster.report_remaining(running, remaining_seconds=2 * HOUR)
    p50, p90 = hours(cluster, waits)
    assert 1.6 < p50 < 2.4
    assert p50 < p90 < 3.5
    cluster.forward(HOUR)
    cluster.report_remaining(running, remaining_seconds=HOUR)
    assert hours(cluster, waits)[0] < p50 - 0.6


def test_a_measured_job_is_stopped_by_its_limit_at_the_latest(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    running = cluster.submit("ana", gpus=1, max_runtime_seconds=2 * HOUR)
    cluster.fill()
    waits = cluster.submit("ana", gpus=1)
    cluster.report_remaining(running, remaining_seconds=10 * HOUR)
    p50, p90 = hours(cluster, waits)
    assert 1.5 < p50 <= p90 == 2


def test_by_what_such_jobs_of_its_owner_took(cluster: Cluster) -> None:
    past(cluster, [HOUR] * 5, "ana", gpus=1)
    past(cluster, [3 * HOUR] * 5, "ben", gpus=1)
    cluster.host("gpu-1", gpus=1)
    first, second, third = (cluster.submit(owner, gpus=1) for owner in ("ana", "ana", "ben"))
    assert cluster.fill() == [first]
    cluster.report_remaining(first, remaining_seconds=0)
    assert cluster.order() == [second, third] or cluster.order() == [third, second]
    ahead, behind = cluster.order()
    longer = 1 if ahead == second else 3
    assert hours(cluster, ahead) == (0, 0)
    assert hours(cluster, behind) == (longer, longer)


def test_the_spread_of_the_past_is_between_p50_and_p90(cluster: Cluster) -> None:
    past(cluster, [HOUR] * 7 + [9 * HOUR] * 3, gpus=1)
    cluster.host("gpu-1", gpus=1)
    cluster.submit("ana", gpus=1)
    cluster.fill()
    waits = cluster.submit("ana", gpus=1)
    assert hours(cluster, waits) == (1, 9)


def test_a_running_job_that_took_longer_than_any_before_may_end_whenever(cluster: Cluster) -> None:
    past(cluster, [HOUR] * 5, gpus=1)
    cluster.host("gpu-1", gpus=1)
    cluster.submit("ana", gpus=1)
    cluster.fill()
    waits = cluster.submit("ana", gpus=1)
    cluster.forward(0.5 * HOUR)
    assert hours(cluster, waits) == (0.5, 0.5)
    cluster.forward(HOUR)
    assert start(cluster, waits) is None


def test_a_large_job_waits_for_devices_to_come_together(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    running = cluster.submit_many(2, "ben", gpus=1)
    cluster.fill()
    cluster.pause(running[0])
    cluster.report_remaining(running[1], remaining_seconds=5 * HOUR)
    cluster.forward(1)
    large = cluster.submit("ana", gpus=2)
    p50, _ = hours(cluster, large)
    assert 4 < p50 < 6


def test_a_job_that_could_start_nowhere_has_no_start(cluster: Cluster) -> None:
    past(cluster, [HOUR] * 5, gpus=1)
    cluster.host("gpu-1", gpus=1)
    cluster.user("cem", max_running=0)
    too_large, limited, fits = cluster.submit(gpus=4), cluster.submit("cem", gpus=1), cluster.submit(gpus=1)
    assert [start(cluster, job_id) for job_id in (too_large, limited)] == [None, None]
    assert hours(cluster, fits) == (0, 0)


def test_asking_again_gives_the_same_answer(cluster: Cluster) -> None:
    past(cluster, [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR], gpus=1)
    cluster.host("gpu-1", gpus=1)
    jobs = cluster.submit_many(6, "ana", gpus=1)
    told = {job_id: start(cluster, job_id) for job_id in jobs}
    assert {job_id: start(cluster, job_id) for job_id in jobs} == told
    assert None not in told.values()
