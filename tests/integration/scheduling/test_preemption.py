"""A job of high priority stops jobs of low priority that hold the devices it needs: the fewest, and of those the youngest."""

from typing import Any

import pytest

from tests.integration.scheduling.cluster import HOUR, Cluster


def start(cluster: Cluster, *jobs: str) -> None:
    assert set(cluster.fill()) == set(jobs)
    cluster.forward(60)


def one_after_another(cluster: Cluster, count: int, owner: str = "ben", **changes: Any) -> list[str]:
    """Each started a minute after the last."""
    started = []
    for _ in range(count):
        started.append(cluster.submit(owner, **{"gpus": 1, "priority": "low", **changes}))
        start(cluster, started[-1])
    return started


def test_a_high_job_has_a_low_one_stopped_which_goes_on_later(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    (low,) = one_after_another(cluster, 1)
    high = cluster.submit("ana", gpus=1, priority="high")
    assert cluster.fill() == []
    assert cluster.sweep() == [low]
    assert cluster.sweep() == [], "once is enough"
    assert cluster.job(low).stop_requested == "preempt"
    assert cluster.events(low)[-1].message == f"job {high} of high priority needs its devices; it goes on later from a checkpoint"
    cluster.waits({high: ("preempting", f"a GPU: {low} on host gpu-1 writes a checkpoint and stops")})
    cluster.stop(low)
    assert (cluster.job(low).status, cluster.job(low).crashes) == ("queued", 0)
    assert cluster.fill() == [high]
    cluster.waits({low: ("devices", "a GPU: host gpu-1 has 0 free until about 03 Mar 08:01 UTC")})
    cluster.succeed(high)
    assert cluster.fill() == [low]
    job = cluster.job(low)
    assert (job.status, job.attempt, job.run_seconds) == ("running", 2, 60)


def test_it_starts_before_whoever_used_less_when_the_devices_come_free(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    (low,) = one_after_another(cluster, 1)
    high = cluster.submit("ana", gpus=1, priority="high")
    cluster.sweep()
    other = cluster.submit("cem", gpus=1)
    cluster.stop(low)
    assert cluster.fill() == [high]
    assert cluster.order() == [other, low]


@pytest.mark.parametrize("priority", ["normal", "low"])
def test_only_high_stops_others(cluster: Cluster, priority: str) -> None:
    cluster.host("gpu-1", gpus=1)
    one_after_another(cluster, 1)
    cluster.submit("ana", gpus=1, priority=priority)
    assert cluster.sweep() == []


@pytest.mark.parametrize("priority", ["normal", "high"])
def test_only_low_is_stopped(cluster: Cluster, priority: str) -> None:
    cluster.host("gpu-1", gpus=1)
    (running,) = one_after_another(cluster, 1, priority=priority)
    high = cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == []
    cluster.waits({high: ("devices", "a GPU: host gpu-1 has 0 free until about 03 Mar 08:00 UTC")})
    assert cluster.job(running).stop_requested is None


def test_nobody_is_stopped_where_devices_are_free(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    one_after_another(cluster, 1)
    cluster.host("gpu-2", gpus=1)
    high = cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == []
    assert cluster.fill() == [high]


def test_nobody_is_stopped_where_that_would_not_be_enough(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4)
    one_after_another(cluster, 2)
    one_after_another(cluster, 2, priority="normal")
    high = cluster.submit("ana", gpus=3, priority="high")
    assert cluster.sweep() == []
    cluster.waits({high: ("devices", "3 GPUs: host gpu-1 has 0 free until about 03 Mar 08:02 UTC")})


def test_the_youngest_is_stopped(cluster: Cluster) -> None:
    for name in ("gpu-1", "gpu-2"):
        cluster.host(name, gpus=2)
    lows = one_after_another(cluster, 4)
    cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == [lows[-1]]


def test_one_is_stopped_where_that_is_enough_though_it_is_the_oldest(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4)
    (large,) = one_after_another(cluster, 1, gpus=2)
    one_after_another(cluster, 2)
    cluster.submit("ana", gpus=2, priority="high")
    assert cluster.sweep() == [large]


def test_the_fewest_are_stopped_and_of_those_the_youngest(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=8)
    one, two, three, another = (one_after_another(cluster, 1, gpus=gpus)[0] for gpus in (1, 2, 3, 2))
    high = cluster.submit("ana", gpus=4, priority="high")
    assert set(cluster.sweep()) == {three, another}, "with the younger of the two that make four or more"
    for low in (three, another):
        cluster.stop(low)
    assert cluster.fill() == [high]
    assert cluster.status(one, two) == ["running", "running"]


def test_the_host_is_the_one_where_the_fewest_are_stopped(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    (single,) = one_after_another(cluster, 1, gpus=2)
    cluster.host("gpu-2", gpus=2)
    one_after_another(cluster, 2)
    high = cluster.submit("ana", gpus=2, priority="high")
    assert cluster.sweep() == [single]
    assert cluster.job(high).reserved_worker_id == "gpu-1"


def test_free_devices_and_those_coming_free_count(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4)
    lows = one_after_another(cluster, 3)
    cluster.pause(lows[0])
    high = cluster.submit("ana", gpus=3, priority="high")
    assert cluster.sweep() == [lows[2]], "one is free and one is being paused"
    both = ", ".join(sorted((lows[0], lows[2])))
    words = f"3 GPUs: {both} on host gpu-1 write a checkpoint each and stop"
    cluster.waits({high: ("preempting", words)})
    cluster.stop(lows[0])
    assert cluster.fill() == []
    cluster.stop(lows[2])
    assert cluster.fill() == [high]


def test_where_its_devices_come_free_already_nobody_more_is_stopped(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    lows = one_after_another(cluster, 2)
    cluster.pause(lows[0])
    high = cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == []
    assert cluster.job(high).reserved_worker_id == "gpu-1"
    cluster.waits({high: ("preempting", f"a GPU: {lows[0]} on host gpu-1 writes a checkpoint and stops")})


def test_several_high_jobs_stop_as_many_low_ones_at_once(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4)
    lows = one_after_another(cluster, 4)
    highs = [cluster.submit(owner, gpus=1, priority="high") for owner in ("ana", "cem", "dan")]
    assert set(cluster.sweep()) == set(lows[1:])
    assert cluster.sweep() == []
    cluster.check()
    for low in lows[1:]:
        cluster.stop(low)
    assert set(cluster.fill()) == set(highs)
    assert cluster.status(lows[0]) == ["running"]


def test_two_large_high_jobs_on_one_host_take_turns(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4)
    lows = one_after_another(cluster, 4)
    first, second = cluster.submit("ana", gpus=3, priority="high"), cluster.submit("cem", gpus=3, priority="high")
    assert set(cluster.sweep()) == set(lows[1:])
    assert cluster.sweep() == []
    for low in lows[1:]:
        cluster.stop(low)
    assert cluster.fill() == [first]
    assert cluster.sweep() == []
    cluster.succeed(first)
    assert cluster.fill()[0] == second


def test_a_low_job_that_rose_to_normal_is_not_stopped(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    busy = cluster.submit("cem", gpus=1)
    cluster.fill()
    low = cluster.submit("ben", gpus=1, priority="low")
    cluster.forward(25 * HOUR)
    cluster.sweep()
    assert cluster.job(low).queue_class == 1
    cluster.succeed(busy)
    assert cluster.fill() == [low]
    cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == []


def test_a_preempted_job_keeps_its_place_before_younger_ones_of_its_owner(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    (low,) = one_after_another(cluster, 1)
    younger = cluster.submit("ben", gpus=1, priority="low")
    high = cluster.submit("ana", gpus=1, priority="high")
    cluster.sweep()
    cluster.stop(low)
    assert cluster.fill() == [high]
    assert cluster.order() == [low, younger]
    assert cluster.used(low) == pytest.approx(60, rel=0.01), "charged with what it ran"


def test_the_place_of_a_preemptor_that_was_cancelled_goes_to_whose_turn_it_is(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    (low,) = one_after_another(cluster, 1)
    high = cluster.submit("ana", gpus=1, priority="high")
    cluster.sweep()
    cluster.cancel(high)
    assert cluster.sweep() == []
    cluster.stop(low)
    assert cluster.fill() == [low], "it goes on at once"


def test_what_was_stopped_for_one_that_was_cancelled_then_goes_on(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    (low,) = one_after_another(cluster, 1)
    high = cluster.submit("ana", gpus=1, priority="high")
    cluster.sweep()
    cluster.stop(low)
    cluster.cancel(high)
    assert cluster.fill() == [low]
    assert cluster.job(low).attempt == 2


@pytest.mark.parametrize(("ask", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_what_its_owner_asks_of_a_job_that_is_being_preempted_happens(cluster: Cluster, ask: str, status: str) -> None:
    cluster.host("gpu-1", gpus=1)
    (low,) = one_after_another(cluster, 1)
    high = cluster.submit("ana", gpus=1, priority="high")
    cluster.sweep()
    getattr(cluster, ask)(low)
    assert cluster.sweep() == []
    cluster.stop(low)
    assert cluster.status(low) == [status]
    assert cluster.fill() == [high]


def test_an_owner_at_the_limit_stops_nobody(cluster: Cluster) -> None:
    cluster.user("ana", max_running=0)
    cluster.host("gpu-1", gpus=1)
    one_after_another(cluster, 1)
    high = cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == []
    cluster.waits({high: ("user_limit", "an admin to raise max_running_jobs of ana, which is 0: none of their jobs may run")})


def test_a_draining_host_is_not_emptied_for_a_high_job(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    one_after_another(cluster, 1)
    cluster.drain("gpu-1", finish=True)
    high = cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == []
    cluster.waits({high: ("draining", "a GPU: every worker of pool 'default' that has one is draining")})


def test_a_job_that_only_rose_to_the_class_of_high_priority_does_not_hold_off_a_high_one(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    lows = one_after_another(cluster, 2, max_runtime_seconds=6 * 86_400)
    rose = cluster.submit("cem", gpus=2)
    cluster.forward(25 * HOUR)
    cluster.sweep()
    cluster.succeed(lows[0])
    assert (cluster.fill(), cluster.job(rose).queue_class, cluster.job(rose).reserved_worker_id) == ([], 0, "gpu-1")
    high = cluster.submit("ben", gpus=2, priority="high")
    assert cluster.order() == [rose, high], "ben has used more"
    assert cluster.sweep() == [lows[1]]
    cluster.check()
    place = cluster.place(rose)
    assert (place.blocker.reason, place.blocker.job_ids) == ("kept_host", (high,))
    cluster.stop(lows[1])
    assert cluster.fill() == [high]
    assert cluster.place(rose).blocker.reason == "devices"


def test_those_that_nothing_helps_keep_room_from_nobody(cluster: Cluster) -> None:
    cluster.user("dan", max_running=0)
    cluster.host("gpu-1", gpus=2)
    lows = one_after_another(cluster, 2)
    cluster.submit_many(25, "dan", gpus=1, priority="high")
    cluster.submit_many(25, "cem", gpus=8, priority="high")
    cluster.submit("ana", gpus=1, priority="high")
    assert cluster.sweep() == [lows[1]]


def test_no_more_are_stopped_than_a_limit_lets_start(cluster: Cluster) -> None:
    cluster.user("ana", max_running=1)
    cluster.host("gpu-1", gpus=3)
    lows = one_after_another(cluster, 3)
    cluster.submit_many(3, "ana", gpus=1, priority="high")
    assert cluster.sweep() == [lows[2]]
    assert cluster.sweep() == []
