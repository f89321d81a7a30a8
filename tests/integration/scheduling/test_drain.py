"""A worker that registers, and one that is drained: it takes no more jobs; those on it go on elsewhere, or run to their end."""

from service.jobs import Fence
from tests.integration.scheduling.cluster import Cluster


def test_a_draining_worker_takes_nothing_and_the_others_do(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    cluster.drain("gpu-1")
    job_id = cluster.submit(gpus=1)
    assert cluster.fill() == []
    cluster.waits({job_id: ("draining", "a GPU: every worker of pool 'default' that has one is draining")})
    cluster.host("gpu-2", gpus=1)
    cluster.waits({job_id: ("starting", "a moment: cuda:0 of host gpu-2 is free for it")})
    assert cluster.fill() == [job_id]


def test_a_full_host_that_is_drained_gives_its_job_to_another(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=2)
    job_id = cluster.submit(gpus=2)
    cluster.fill()
    waits = cluster.submit(gpus=2)
    cluster.drain("gpu-1")
    cluster.waits({waits: ("draining", "2 GPUs: every worker of pool 'default' that has as many is draining")})
    cluster.host("gpu-2", gpus=2)
    cluster.stop(job_id, "drain")
    assert cluster.order() == [job_id, waits], "it is the older"
    assert cluster.fill() == [job_id]
    assert (cluster.job(job_id).worker_id, cluster.job(job_id).crashes) == ("gpu-2", 0)
    cluster.waits({waits: ("devices", "2 GPUs: host gpu-2 has 0 free until about 03 Mar 08:00 UTC")})


def test_a_worker_that_takes_jobs_again_is_counted_again(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    cluster.drain("gpu-1")
    job_id = cluster.submit(gpus=1)
    cluster.undrain("gpu-1")
    assert cluster.fill() == [job_id]


def test_what_a_worker_does_not_offer_is_not_free_though_nobody_holds_it(cluster: Cluster) -> None:
    """A trainer that is just ending has its devices still, though its job is settled."""
    cluster.host("gpu-1", gpus=2)
    cluster.machines["gpu-1"].running["ending"] = (Fence("ending", 1), ("cuda:0",))
    large, small = cluster.submit(gpus=2), cluster.submit("ben", gpus=1)
    assert cluster.claim("gpu-1") == small
    assert cluster.claim("gpu-1") is None
    del cluster.machines["gpu-1"].running["ending"]
    cluster.succeed(small)
    assert cluster.fill() == [large]


def test_a_worker_that_registers_again_as_nobody_knows_of_the_first_time_is_one_worker(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit(gpus=1)
    assert cluster.fill() == [job_id]
