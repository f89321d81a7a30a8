"""What a pool's workers could hold at best, and what they lately could: a job that none of them ever could is refused at once."""

import pytest

from service.capacity import resource_faults
from service.spec.job import ResourceSpec
from tests.integration.scheduling.cluster import HOUR, Cluster

MEMORY_SECONDS = 24 * HOUR


def refusal(cluster: Cluster, **resources: object) -> tuple[str, str] | None:
    found = cluster.do(
        lambda session: resource_faults(
            session,
            ResourceSpec.model_validate(resources),
            configured_pools=["default"],
            memory_seconds=MEMORY_SECONDS,
        )
    )
    assert len(found) <= 1
    return (found[0].pointer, found[0].message) if found else None


@pytest.mark.parametrize(
    ("resources", "pointer", "message"),
    [
        ({"gpus": 5}, "/resources/gpus", "no worker of pool 'default' has 5 GPUs: the most on one host is 4"),
        (
            {"gpus": 1, "min_gpu_memory_gib": 100},
            "/resources/min_gpu_memory_gib",
            "no worker of pool 'default' has a GPU of 100 GiB or more; its largest GPU has 80 GiB",
        ),
        (
            {"gpus": 3, "min_gpu_memory_gib": 40},
            "/resources/min_gpu_memory_gib",
            "no worker of pool 'default' has 3 GPUs of 40 GiB or more; its best host has 3 of 16 GiB",
        ),
        ({"cpu_slots": 3}, "/resources/cpu_slots", "no worker of pool 'default' has 3 CPU slots: the most on one host is 2"),
        (
            {"pool": "nowhere"},
            "/resources/pool",
            "there is no pool 'nowhere': no worker has served it, and the settings do not name it; use 'default'",
        ),
    ],
)
def test_what_no_worker_could_ever_hold_is_refused_with_what_there_is(
    cluster: Cluster, resources: dict[str, object], pointer: str, message: str
) -> None:
    cluster.host("gpu-1", gpus=4, memory=16.0, slots=1)
    cluster.host("gpu-2", gpus=2, memory=80.0, slots=2)
    assert refusal(cluster, **resources) == (pointer, message)


@pytest.mark.parametrize(
    "resources", [{"gpus": 4}, {"gpus": 2, "min_gpu_memory_gib": 80}, {"cpu_slots": 2}, {"gpus": 4, "min_gpu_memory_gib": 16}]
)
def test_what_one_host_could_hold_waits_for_it_however_busy(cluster: Cluster, resources: dict[str, object]) -> None:
    cluster.host("gpu-1", gpus=4, memory=16.0, slots=1)
    cluster.host("gpu-2", gpus=2, memory=80.0, slots=2)
    cluster.submit_many(6, gpus=1)
    cluster.submit_many(3)
    cluster.fill()
    cluster.drain("gpu-1", finish=True)
    assert refusal(cluster, **resources) is None


def test_a_host_that_went_away_counts_for_a_while(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    cluster.host("gpu-2", gpus=4)
    cluster.end("gpu-2")
    assert refusal(cluster, gpus=4) is None
    cluster.forward(MEMORY_SECONDS + 1)
    assert refusal(cluster, gpus=4) == ("/resources/gpus", "no worker of pool 'default' has 4 GPUs: the most on one host is 1")


def test_a_pool_without_a_worker_so_far_is_trusted(cluster: Cluster) -> None:
    assert refusal(cluster, gpus=64) is None
    cluster.host("cpu-1", slots=1)
    assert refusal(cluster, gpus=64) == ("/resources/gpus", "no worker of pool 'default' has 64 GPUs: none has any GPU")


def test_gpus_of_unknown_memory_are_not_promised(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1, memory=None)
    assert refusal(cluster, gpus=1) is None
    message = "no worker of pool 'default' has a GPU of 8 GiB or more; the memory of its GPUs is not known"
    assert refusal(cluster, gpus=1, min_gpu_memory_gib=8) == ("/resources/min_gpu_memory_gib", message)
