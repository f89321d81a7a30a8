"""What a job needs of a host, and how several share one: devices are packed, the large ones stay free for who needs them."""

from typing import Any

import pytest

from tests.integration.scheduling.cluster import Cluster


def devices(cluster: Cluster, job_id: str) -> tuple[str, ...]:
    return cluster.on(job_id)[0].running[job_id][1]


def test_several_jobs_share_a_host_and_none_a_device(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=4, slots=2)
    two, one, cpu, both = (cluster.submit(gpus=gpus) for gpus in (2, 1, 0, 2))
    assert set(cluster.fill()) == {two, one, cpu}
    assert [devices(cluster, job_id) for job_id in (two, one, cpu)] == [("cuda:0", "cuda:1"), ("cuda:2",), ("cpu:0",)]
    cluster.waits({both: ("devices", "2 GPUs: host gpu-1 has 1 free until about 03 Mar 08:00 UTC")})
    cluster.succeed(one)
    assert cluster.fill() == [both]
    assert devices(cluster, both) == ("cuda:2", "cuda:3")


def test_devices_of_two_hosts_are_not_put_together(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    cluster.host("gpu-2", gpus=2)
    cluster.submit_many(2, gpus=1)
    cluster.fill("gpu-1")
    cluster.cancel(next(iter(cluster.machines["gpu-1"].running)))
    cluster.stop(next(iter(cluster.machines["gpu-1"].running)), "cancel")
    cluster.submit("ben", gpus=1)
    cluster.fill("gpu-2")
    large = cluster.submit("cem", gpus=2)
    assert cluster.fill() == []
    cluster.waits({large: ("devices", "2 GPUs: host gpu-1 has 1 free until about 03 Mar 08:00 UTC")})


@pytest.mark.parametrize(
    ("memory", "resources", "got"),
    [
        ([16.0, 80.0], {"gpus": 1}, ("cuda:0",)),
        ([80.0, 16.0], {"gpus": 1}, ("cuda:1",)),
        ([80.0, 16.0, 40.0], {"gpus": 2}, ("cuda:1", "cuda:2")),
        ([80.0, 16.0, 40.0], {"gpus": 1, "min_gpu_memory_gib": 16.5}, ("cuda:2",)),
        ([80.0, 16.0, 40.0], {"gpus": 2, "min_gpu_memory_gib": 40.0}, ("cuda:2", "cuda:0")),
        ([None], {"gpus": 1}, ("cuda:0",)),
    ],
)
def test_a_job_gets_the_least_devices_that_hold_it(
    cluster: Cluster, memory: list[float], resources: dict[str, Any], got: tuple[str, ...]
) -> None:
    cluster.host("gpu-1", gpus=len(memory), memory=memory)
    job_id = cluster.submit(**resources)
    assert cluster.fill() == [job_id]
    assert devices(cluster, job_id) == got


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpus": 3}, "3 GPUs: no worker of pool 'default' has as many"),
        ({"gpus": 1, "min_gpu_memory_gib": 81.0}, "a GPU of 81 GiB or more: no worker of pool 'default' has one"),
        ({"gpus": 2, "min_gpu_memory_gib": 40.0}, "2 GPUs of 40 GiB or more: no worker of pool 'default' has as many"),
        ({"cpu_slots": 2}, "2 CPU slots: no worker of pool 'default' has as many"),
    ],
)
def test_what_no_worker_has_is_told_as_such(cluster: Cluster, resources: dict[str, Any], words: str) -> None:
    cluster.host("gpu-1", gpus=2, memory=[16.0, 80.0], slots=1)
    job_id = cluster.submit(**resources)
    fits = cluster.submit("ben", gpus=1)
    cluster.waits(
        {
            job_id: ("no_suitable_worker", words),
            fits: ("starting", "a moment: cuda:0 of host gpu-1 is free for it"),
        }
    )


def test_a_gpu_of_unknown_memory_is_not_given_to_a_job_that_asks_for_some(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1, memory=None)
    job_id = cluster.submit(gpus=1, min_gpu_memory_gib=1)
    assert cluster.fill() == []
    assert cluster.place(job_id).blocker.reason == "no_suitable_worker"


def test_a_pool_is_served_by_its_own_workers(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    job_id = cluster.submit(pool="lab")
    assert cluster.fill() == []
    cluster.waits({job_id: ("no_worker", "a worker: none is alive in pool 'lab'")}, pool="lab")
    cluster.host("lab-1", slots=1, pool="lab")
    cluster.waits({job_id: ("starting", "a moment: cpu:0 of host lab-1 is free for it")}, pool="lab")
    assert cluster.fill() == [job_id]


def test_a_pool_whose_workers_fell_silent_has_none(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    job_id = cluster.submit()
    cluster.machines["cpu-1"].beats = False
    cluster.forward(60)
    cluster.waits({job_id: ("no_worker", "a worker: none is alive in pool 'default'")})


def test_a_job_that_fits_is_not_held_up_by_a_better_one_that_does_not(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1, memory=16.0, slots=1)
    cluster.host("gpu-2", gpus=1, memory=80.0)
    busy = cluster.submit("cem", gpus=1, min_gpu_memory_gib=40.0)
    cluster.fill()
    large = cluster.submit(priority="high", gpus=1, min_gpu_memory_gib=40.0)
    plain, cpu = cluster.submit(priority="low", gpus=1), cluster.submit("ben", priority="low")
    assert set(cluster.fill()) == {plain, cpu}
    assert cluster.place(large).blocker.job_ids == (busy,)


def test_only_those_ahead_who_could_take_its_devices_are_told_as_ahead(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1, memory=16.0)
    cluster.host("gpu-2", gpus=1, memory=80.0)
    cluster.host("cpu-1", slots=1)
    cluster.submit("zoe", gpus=1)
    cluster.submit("zoe", gpus=1, min_gpu_memory_gib=40.0)
    cluster.submit("zoe")
    assert len(cluster.fill()) == 3
    large, cpu, plain, plain_too, large_too = (
        cluster.submit("ana", gpus=1, min_gpu_memory_gib=40.0),
        cluster.submit("ana"),
        cluster.submit("ana", gpus=1),
        cluster.submit("ana", gpus=1),
        cluster.submit("ana", gpus=1, min_gpu_memory_gib=40.0),
    )
    cluster.waits(
        {
            large: ("devices", "a GPU of 40 GiB or more: host gpu-2 has 0 free until about 03 Mar 08:00 UTC"),
            cpu: ("devices", "a CPU slot: host cpu-1 has 0 free until about 03 Mar 08:00 UTC"),
            plain: ("devices", "a GPU: host gpu-1 has 0 free until about 03 Mar 08:00 UTC"),
            plain_too: ("jobs_ahead", f"2 jobs that start earlier for the same devices; {large} is next"),
            large_too: ("jobs_ahead", f"3 jobs that start earlier for the same devices; {large} is next"),
        }
    )


def test_the_one_thing_is_the_first_that_must_change(cluster: Cluster) -> None:
    """No worker, none that could hold it, all drained, the owner's limit, devices: in this order."""
    cluster.user("ana", max_running=0)
    job_id = cluster.submit("ana", gpus=2)
    reasons = [cluster.place(job_id).blocker.reason]
    cluster.host("gpu-1", gpus=1)
    reasons.append(cluster.place(job_id).blocker.reason)
    cluster.host("gpu-2", gpus=2)
    cluster.drain("gpu-2")
    reasons.append(cluster.place(job_id).blocker.reason)
    cluster.undrain("gpu-2")
    reasons.append(cluster.place(job_id).blocker.reason)
    cluster.submit("ben", gpus=1)
    cluster.fill("gpu-2")
    cluster.user("ana")
    reasons.append(cluster.place(job_id).blocker.reason)
    cluster.succeed(next(iter(cluster.machines["gpu-2"].running)))
    reasons.append(cluster.place(job_id).blocker.reason)
    assert reasons == ["no_worker", "no_suitable_worker", "draining", "user_limit", "devices", "starting"]
