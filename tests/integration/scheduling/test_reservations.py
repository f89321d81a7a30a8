"""A large job is not starved: once it has waited, a host is kept free for it, and what ends before that may still pass."""

import pytest

from service.queue_policy import QueuePolicy
from tests.integration.scheduling.cluster import HOUR, Cluster

WAIT = QueuePolicy().reserve_after_seconds + 1


@pytest.fixture
def halves(cluster: Cluster) -> list[str]:
    """One host of four GPUs: two jobs hold it, one for two hours more and one for six, as they measured."""
    cluster.host("gpu-1", gpus=4)
    halves = cluster.submit_many(2, "cem", gpus=2)
    cluster.fill()
    for job_id, hours in zip(halves, (2, 6), strict=True):
        cluster.report_remaining(job_id, remaining_seconds=hours * HOUR)
    return halves


def two_full_hosts(cluster: Cluster, *remaining_seconds: float) -> list[str]:
    """Two hosts of two GPUs, each with two jobs of one; what they still take, as they measured it."""
    for name in ("gpu-1", "gpu-2"):
        cluster.host(name, gpus=2)
    running = cluster.submit_many(4, "cem", gpus=1)
    cluster.fill()
    for job_id, seconds in zip(running, remaining_seconds, strict=False):
        cluster.report_remaining(job_id, remaining_seconds=seconds)
    return running


def test_before_it_has_waited_long_small_jobs_pass_a_large_one(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=4)
    small = cluster.submit("ben", gpus=1)
    cluster.succeed(halves[0])
    assert cluster.fill() == [small]
    cluster.waits({large: ("devices", "4 GPUs: host gpu-1 has 1 free until about 03 Mar 08:00 UTC")})
    assert "job.host_kept" not in cluster.types(large)


def test_once_it_has_waited_long_its_host_is_kept_free(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=4)
    cluster.forward(WAIT)
    small = cluster.submit("ben", gpus=1)
    cluster.succeed(halves[0])
    assert cluster.fill() == []
    assert cluster.job(large).reserved_worker_id == "gpu-1"
    assert "host gpu-1 is kept free for it, which needs 4 GPUs: it has waited long" in [e.message for e in cluster.events(large)]
    cluster.waits(
        {
            large: ("devices", "4 GPUs: host gpu-1 has 2 free until about 02 Mar 14:00 UTC, and is kept free for it"),
            small: (
                "kept_host",
                f"host gpu-1, which is kept free for {large} until about 02 Mar 14:00 UTC, and this job may run for 86,400 s",
            ),
        }
    )
    cluster.succeed(halves[1])
    assert cluster.fill() == [large]
    assert cluster.job(large).reserved_worker_id is None


def test_what_ends_before_its_devices_are_together_may_pass(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=4)
    cluster.forward(WAIT)
    long, short = cluster.submit("ben", gpus=1), cluster.submit("ben", gpus=1, max_runtime_seconds=3 * HOUR)
    cluster.succeed(halves[0])
    assert cluster.fill() == [short], "it is behind a longer one of its owner, and passes that too"
    assert set(cluster.queued()) == {large, long}


def test_what_leaves_it_enough_devices_may_pass(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=3)
    cluster.forward(WAIT)
    first, second = cluster.submit_many(2, "ben", gpus=1)
    cluster.succeed(halves[0])
    assert cluster.fill() == [first]
    place = cluster.place(second)
    assert (place.blocker.reason, place.blocker.job_ids, place.blocker.worker_id) == ("kept_host", (large,), "gpu-1")


def test_an_endless_stream_of_small_jobs_does_not_starve_a_large_one(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4)
    stream = cluster.submit_many(4, "ben", gpus=1)
    cluster.fill()
    large = cluster.submit("ana", gpus=4)
    started: list[str] = []
    for _ in range(12):
        cluster.forward(HOUR / 4)
        cluster.submit("ben", gpus=1)
        cluster.submit("cem", gpus=1)
        oldest = next(iter(cluster.machines["gpu-1"].running))
        cluster.succeed(oldest)
        started += cluster.fill()
        if large in started:
            break
    assert large in started
    assert len(started) <= 1 + len(stream), "no more passed than what started before it had waited long"


def test_the_host_is_the_one_where_the_devices_are_together_first(cluster: Cluster) -> None:
    for name in ("gpu-1", "gpu-2", "gpu-3"):
        cluster.host(name, gpus=2)
    running = cluster.submit_many(6, "cem", gpus=1)
    cluster.fill()
    for job_id, hours in zip(running, (1, 9, 5, 4, 8, 8), strict=True):
        cluster.report_remaining(job_id, remaining_seconds=hours * HOUR)
    large = cluster.submit("ana", gpus=2)
    cluster.forward(WAIT)
    cluster.succeed(running[0])
    assert cluster.fill() == []
    assert cluster.job(large).reserved_worker_id == "gpu-2"
    cluster.waits({large: ("devices", "2 GPUs: host gpu-2 has 0 free until about 02 Mar 13:00 UTC, and is kept free for it")})
    small = cluster.submit("ben", gpus=1)
    assert cluster.fill() == [small], "the other hosts are not kept"


def test_it_starts_wherever_it_fits_first(cluster: Cluster) -> None:
    running = two_full_hosts(cluster, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR)
    large = cluster.submit("ana", gpus=2)
    cluster.forward(WAIT)
    cluster.succeed(running[3])
    assert (cluster.fill(), cluster.job(large).reserved_worker_id) == ([], "gpu-1")
    cluster.succeed(running[2])
    assert cluster.fill() == [large]
    assert cluster.job(large).worker_id == "gpu-2"


def test_no_host_is_kept_for_a_single_device_which_comes_free_by_itself(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2, memory=[16.0, 80.0])
    cluster.submit("cem", gpus=1, min_gpu_memory_gib=40)
    cluster.fill()
    waits = cluster.submit("ana", gpus=1, min_gpu_memory_gib=40)
    cluster.forward(WAIT)
    small = cluster.submit("ben", gpus=1)
    assert cluster.fill() == [small]
    assert cluster.job(waits).reserved_worker_id is None
    cluster.waits({waits: ("devices", "a GPU of 40 GiB or more: host gpu-1 has 0 free until about 03 Mar 08:00 UTC")})


def test_a_host_kept_for_a_low_job_binds_no_better_one(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=4, priority="low")
    cluster.forward(WAIT)
    cluster.succeed(halves[0])
    assert (cluster.fill(), cluster.job(large).reserved_worker_id) == ([], "gpu-1")
    normal = cluster.submit("ben", gpus=1)
    low = cluster.submit("ben", gpus=1, priority="low", max_runtime_seconds=2 * 86_400)
    assert cluster.fill() == [normal]
    assert cluster.place(low).blocker.reason == "kept_host"


def test_of_two_jobs_that_one_host_is_kept_for_the_better_class_goes_first(cluster: Cluster, halves: list[str]) -> None:
    low = cluster.submit("ana", gpus=4, priority="low")
    cluster.forward(WAIT)
    normal = cluster.submit("ben", gpus=4)
    cluster.succeed(halves[0])
    assert (cluster.fill(), cluster.job(low).reserved_worker_id) == ([], "gpu-1")
    cluster.forward(WAIT)
    small = cluster.submit("cem", gpus=1)
    assert cluster.fill() == []
    assert [cluster.job(job_id).reserved_worker_id for job_id in (low, normal)] == ["gpu-1", "gpu-1"]
    cluster.check()
    assert cluster.place(small).blocker.job_ids == (normal,)
    assert cluster.place(low).blocker.reason == "jobs_ahead"
    assert cluster.place(low).blocker.job_ids == (normal, small)
    cluster.succeed(halves[1])
    assert cluster.fill() == [normal]
    cluster.succeed(normal)
    assert cluster.fill() == [small], "of a better class than the one that the host is kept for now"
    cluster.succeed(small)
    assert cluster.fill() == [low]


def test_one_host_at_a_time_is_kept_in_a_class(cluster: Cluster) -> None:
    running = two_full_hosts(cluster)
    first, second = cluster.submit("ana", gpus=2), cluster.submit("ben", gpus=2)
    cluster.forward(WAIT)
    cluster.succeed(running[0])
    cluster.succeed(running[2])
    assert cluster.fill() == []
    assert [cluster.job(job_id).reserved_worker_id for job_id in (first, second)] == ["gpu-1", None]
    small = cluster.submit("dan", gpus=1)
    assert cluster.fill() == [small]
    assert cluster.job(small).worker_id == "gpu-2"
    cluster.waits(
        {
            first: ("devices", "2 GPUs: host gpu-1 has 1 free until about 03 Mar 08:00 UTC, and is kept free for it"),
            second: ("jobs_ahead", f"1 job that starts earlier for the same devices; {first} is next"),
        }
    )


def test_a_job_whose_owner_is_at_the_limit_keeps_no_host_from_others(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=4)
    cluster.forward(WAIT)
    cluster.succeed(halves[0])
    assert (cluster.fill(), cluster.job(large).reserved_worker_id) == ([], "gpu-1")
    cluster.user("ana", max_running=0)
    another, small = cluster.submit("ben", gpus=4), cluster.submit("ben", gpus=1)
    cluster.forward(WAIT)
    assert cluster.fill() == [], "now the host is kept for another"
    cluster.check()
    assert [cluster.place(job_id).blocker.reason for job_id in (large, another, small)] == ["user_limit", "devices", "kept_host"]
    cluster.user("ana")
    cluster.succeed(halves[1])
    assert cluster.fill()[0] in {large, another}, "two for whom one host is kept do not block each other"


@pytest.mark.parametrize("lost", ["drain", "silent", "end"])
def test_a_host_that_serves_no_more_is_kept_for_nobody_and_another_is(cluster: Cluster, lost: str) -> None:
    running = two_full_hosts(cluster, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR)
    large = cluster.submit("ana", gpus=2)
    cluster.forward(WAIT)
    cluster.succeed(running[0])
    cluster.fill()
    assert cluster.job(large).reserved_worker_id == "gpu-1"
    match lost:
        case "drain":
            cluster.drain("gpu-1", finish=True)
        case "silent":
            cluster.machines["gpu-1"].beats = False
            cluster.forward(60)
        case "end":
            cluster.end("gpu-1")
    cluster.check()
    cluster.sweep()
    assert cluster.job(large).reserved_worker_id is None
    cluster.succeed(running[2])
    cluster.fill("gpu-2")
    assert cluster.job(large).reserved_worker_id == "gpu-2"


def test_what_is_edited_paused_or_cancelled_keeps_no_host(cluster: Cluster, halves: list[str]) -> None:
    large = cluster.submit("ana", gpus=4)
    cluster.forward(WAIT)
    cluster.succeed(halves[0])
    for change in (
        lambda: cluster.edit(large, priority="low"),
        lambda: cluster.pause(large),
        lambda: cluster.cancel(large),
    ):
        if cluster.job(large).status == "paused":
            cluster.resume(large)
            cluster.forward(WAIT)
        cluster.fill()
        assert cluster.job(large).reserved_worker_id == "gpu-1"
        change()
        assert cluster.job(large).reserved_worker_id is None


def test_slots_of_a_cpu_are_kept_like_gpus_and_gpu_jobs_pass(cluster: Cluster) -> None:
    cluster.host("one", gpus=1, slots=2)
    running = cluster.submit_many(2, "cem", cpu_slots=1)
    cluster.fill()
    large = cluster.submit("ana", cpu_slots=2)
    cluster.forward(WAIT)
    cluster.succeed(running[0])
    small, gpu = cluster.submit("ben", cpu_slots=1), cluster.submit("ben", gpus=1)
    assert cluster.fill() == [gpu]
    cluster.waits(
        {
            large: ("devices", "2 CPU slots: host one has 1 free until about 03 Mar 08:00 UTC, and is kept free for it"),
            small: (
                "kept_host",
                f"host one, which is kept free for {large} until about 03 Mar 08:00 UTC, and this job may run for 86,400 s",
            ),
        }
    )


def test_who_used_less_waits_for_the_host_all_the_same_that_is_kept_for_one_who_waited_long(
    cluster: Cluster, halves: list[str]
) -> None:
    cluster.user("dan")
    large = cluster.submit("cem", gpus=4)
    cluster.forward(WAIT)
    cluster.succeed(halves[0])
    assert (cluster.fill(), cluster.job(large).reserved_worker_id) == ([], "gpu-1")
    another = cluster.submit("dan", gpus=3)
    assert cluster.order() == [another, large]
    place = cluster.place(another)
    assert (place.blocker.reason, place.blocker.job_ids, place.blocker.worker_id) == ("kept_host", (large,), "gpu-1")
    cluster.succeed(halves[1])
    assert cluster.fill() == [large]


def test_no_host_is_kept_for_what_fits_somewhere_now(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    cluster.submit("cem", gpus=1)
    cluster.fill()
    large, small = cluster.submit("ana", gpus=2), cluster.submit("ben", gpus=1)
    cluster.forward(WAIT)
    cluster.host("gpu-2", gpus=2)
    assert cluster.claim("gpu-1") == small, "the other host has room for the large one, and asks for it in a moment"
    assert cluster.job(large).reserved_worker_id is None
    assert cluster.claim("gpu-2") == large


def test_another_host_is_kept_where_its_devices_are_expected_there_much_earlier_after_all(cluster: Cluster) -> None:
    pairs = two_full_hosts(cluster, 700, 800, 1000, 1060)
    large = cluster.submit("ana", gpus=2)
    cluster.forward(WAIT)
    smalls = cluster.submit_many(3, "ben", gpus=1)
    cluster.succeed(pairs[0])
    assert cluster.fill() == []
    assert cluster.job(large).reserved_worker_id == "gpu-1"
    cluster.report_remaining(pairs[1], remaining_seconds=500)
    cluster.sweep()
    assert cluster.job(large).reserved_worker_id == "gpu-1", "that is later, but not much"
    cluster.report_remaining(pairs[1], remaining_seconds=20 * HOUR)
    cluster.sweep()
    assert cluster.job(large).reserved_worker_id == "gpu-2"
    assert cluster.events(large)[-1].message.endswith("which needs 2 GPUs: its devices are expected there much earlier")
    assert cluster.fill() == smalls[:1], "what is free on the first is theirs again"
    cluster.succeed(pairs[2])
    assert cluster.fill() == []
    cluster.succeed(pairs[3])
    assert cluster.fill() == [large]
