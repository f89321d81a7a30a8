"""A job that its owner pauses gives its devices up from a checkpoint, and has its place again when it is resumed."""

from service.lifecycle import Outcome
from tests.integration.scheduling.cluster import HOUR, Cluster


def test_a_paused_job_leaves_its_devices_and_goes_on_when_resumed(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    first, second = cluster.submit_many(2, "ana", gpus=1)
    cluster.fill()
    cluster.forward(HOUR)
    assert cluster.pause(first) is Outcome.APPLIED
    cluster.waits({second: ("devices", "a GPU: host gpu-1 has 0 free until about 02 Mar 09:01 UTC")})
    cluster.stop(first)
    assert cluster.status(first) == ["paused"]
    assert cluster.fill() == [second]
    cluster.resume(first)
    third = cluster.submit("ana", gpus=1)
    assert cluster.order() == [first, third], "it is as old as it was"
    cluster.succeed(second)
    assert cluster.fill() == [first]
    job = cluster.job(first)
    assert (job.attempt, job.crashes, job.run_seconds) == (2, 0, HOUR)


def test_a_queued_job_that_is_paused_is_not_in_the_queue(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit("ana", gpus=1)
    assert cluster.pause(job_id) is Outcome.APPLIED
    assert cluster.fill() == []
    assert cluster.order() == []
    cluster.resume(job_id)
    assert cluster.fill() == [job_id]


def test_time_in_a_pause_is_not_time_in_the_queue(cluster: Cluster) -> None:
    job_id = cluster.submit("ana", priority="low")
    cluster.pause(job_id)
    cluster.forward(48 * HOUR)
    cluster.resume(job_id)
    cluster.sweep()
    assert cluster.job(job_id).queue_class == 2


def test_a_pause_that_is_taken_back_in_time_stops_nothing(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit("ana", gpus=1)
    cluster.fill()
    cluster.pause(job_id)
    assert cluster.resume(job_id) is Outcome.APPLIED
    assert (cluster.job(job_id).status, cluster.job(job_id).stop_requested) == ("running", None)


def test_what_ran_before_counts_against_the_time_limit(cluster: Cluster) -> None:
    """So it is known to end sooner, and may start beside a reservation, which it could not when it was new."""
    cluster.host("gpu-1", gpus=2)
    cluster.submit("cem", gpus=1, max_runtime_seconds=12 * HOUR)
    worn = cluster.submit("ben", gpus=1, max_runtime_seconds=10 * HOUR)
    cluster.fill()
    cluster.forward(3 * HOUR)
    cluster.pause(worn)
    cluster.stop(worn)
    large = cluster.submit("ana", gpus=2)
    new = cluster.submit("ben", gpus=1, max_runtime_seconds=10 * HOUR)
    cluster.forward(0.3 * HOUR)
    assert cluster.fill() == []
    assert cluster.job(large).reserved_worker_id == "gpu-1"
    assert cluster.place(new).blocker.reason == "kept_host", "ten hours are longer than the 8.7 that the other has left"
    cluster.resume(worn)
    assert cluster.fill() == [worn], "seven are left of it"
