"""A job that waited longer than a setting rises one class, and no further."""

import pytest

from service.queue_policy import QueuePolicy
from tests.integration.scheduling.cluster import HOUR, Cluster

LONG = QueuePolicy().promote_after_seconds + 1


def test_a_low_job_that_waited_long_stands_among_the_normal_ones(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    busy = cluster.submit("cem", gpus=1)
    cluster.fill()
    low = cluster.submit("ana", gpus=1, priority="low")
    cluster.forward(LONG)
    normal = cluster.submit("ben", gpus=1)
    assert cluster.order() == [normal, low]
    cluster.sweep()
    assert (cluster.job(low).priority, cluster.job(low).queue_class) == (2, 1)
    assert cluster.events(low)[-1].message == "it has waited long, and waits one class higher from now on"
    assert set(cluster.order()[:2]) == {low, normal}
    cluster.submit("ben", gpus=1, priority="low")
    bens = cluster.submit("ben", gpus=1)
    cluster.succeed(busy)
    started = [cluster.claim("gpu-1")]
    cluster.forward(HOUR)
    cluster.succeed(str(started[0]))
    started.append(cluster.claim("gpu-1"))
    assert set(started) == {low, normal}, "in their class the fair share decides, and a second job of ben's comes after both"
    assert cluster.order()[0] == bens


def test_before_that_it_stays(cluster: Cluster) -> None:
    low = cluster.submit(priority="low")
    cluster.forward(LONG - 2)
    cluster.sweep()
    assert cluster.job(low).queue_class == 2


@pytest.mark.parametrize(("priority", "risen"), [("low", 1), ("normal", 0), ("high", 0)])
def test_it_rises_one_class_once(cluster: Cluster, priority: str, risen: int) -> None:
    job_id = cluster.submit(priority=priority)
    for _ in range(4):
        cluster.forward(LONG)
        cluster.sweep()
    assert cluster.job(job_id).queue_class == risen
    assert cluster.types(job_id).count("job.promoted") == (priority != "high")


def test_no_stream_of_better_jobs_starves_a_low_one(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    low = cluster.submit("ana", gpus=1, priority="low")
    cluster.submit("ben", gpus=1)
    started: list[str] = []
    while low not in started:
        assert len(started) < 30
        started += cluster.fill()
        cluster.submit("ben", gpus=1)
        cluster.forward(HOUR)
        cluster.sweep()
        cluster.succeed(started[-1])
    assert len(started) == 26, "a day of others, an hour each, and then its turn: ben has used more"


def test_a_job_that_ran_begins_to_wait_anew_in_its_own_class(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit("ana", gpus=1, priority="low")
    cluster.forward(LONG)
    cluster.sweep()
    assert cluster.fill() == [job_id]
    cluster.crash(job_id)
    assert cluster.job(job_id).queue_class == 2
    cluster.forward(60)
    cluster.sweep()
    assert cluster.job(job_id).queue_class == 2


def test_a_changed_priority_is_its_class(cluster: Cluster) -> None:
    job_id = cluster.submit(priority="low")
    cluster.forward(LONG)
    cluster.sweep()
    cluster.edit(job_id, priority="normal")
    assert cluster.job(job_id).queue_class == 1
    cluster.edit(job_id, priority="low")
    assert cluster.job(job_id).queue_class == 2
    cluster.sweep()
    assert cluster.job(job_id).queue_class == 1, "it has waited long all the same"
