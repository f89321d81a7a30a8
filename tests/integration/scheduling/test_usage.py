"""The account: what each user used, by the hour and decayed, beside the share that would be fair."""

from datetime import timedelta

import pytest

from service.queue_policy import QueuePolicy
from service.usage import Consumption, consumption
from tests.integration.scheduling.cluster import HOUR, Cluster


def account(cluster: Cluster, *, last_hours: float | None = None) -> dict[str, Consumption]:
    since = None if last_hours is None else cluster.now - timedelta(hours=last_hours)
    return {line.user: line for line in cluster.do(lambda session: consumption(session, since=since, at=cluster.now))}


def test_the_account_counts_devices_by_the_second_and_jobs(cluster: Cluster) -> None:
    cluster.user("cem", weight=2)
    cluster.host("one", gpus=4, slots=2)
    four, cpu = cluster.submit("ana", gpus=4), cluster.submit("ben", cpu_slots=2)
    cluster.fill()
    cluster.forward(HOUR)
    cluster.succeed(four)
    cluster.succeed(cpu)
    lines = account(cluster)
    assert (lines["ana"].gpu_seconds, lines["ana"].cpu_slot_seconds, lines["ana"].jobs) == (4 * HOUR, 0, 1)
    assert (lines["ben"].gpu_seconds, lines["ben"].cpu_slot_seconds, lines["ben"].jobs) == (0, 2 * HOUR, 1)
    assert lines["ana"].share == pytest.approx(4 / 4.2)
    assert [lines[name].fair for name in ("ana", "ben", "cem")] == [0.25, 0.25, 0.5]
    assert list(lines) == ["ana", "ben", "cem"], "who used most comes first"


def test_what_still_runs_is_in_the_account_and_in_the_decayed_use(cluster: Cluster) -> None:
    cluster.host("one", gpus=1)
    cluster.submit("ana", gpus=1)
    cluster.fill()
    for _ in range(60):
        cluster.forward(60)
    assert account(cluster)["ana"].gpu_seconds == HOUR
    assert account(cluster)["ana"].decayed == pytest.approx(HOUR, rel=0.01)


def test_each_attempt_is_accounted_whoever_ended_it(cluster: Cluster) -> None:
    cluster.host("one", gpus=1)
    job_id = cluster.submit("ana", gpus=1, priority="low")
    for end in (cluster.crash, cluster.stop, cluster.succeed):
        assert cluster.fill() == [job_id]
        cluster.forward(1000)
        end(job_id)
    line = account(cluster)["ana"]
    assert (line.gpu_seconds, line.jobs) == (3000, 1)
    assert line.decayed == pytest.approx(3000, rel=0.01)
    assert cluster.job(job_id).gpu_seconds == 3000


def test_since_counts_whole_hours(cluster: Cluster) -> None:
    cluster.host("one", gpus=1)
    for _ in range(3):
        job_id = cluster.submit("ana", gpus=1)
        cluster.fill()
        cluster.forward(0.5 * HOUR)
        cluster.succeed(job_id)
        cluster.forward(0.5 * HOUR)
    assert account(cluster)["ana"].gpu_seconds == 1.5 * HOUR
    assert account(cluster, last_hours=1.2)["ana"].gpu_seconds == HOUR
    assert account(cluster, last_hours=0)["ana"].gpu_seconds == 0


def test_a_lost_job_is_charged_until_it_was_found_lost(cluster: Cluster) -> None:
    cluster.host("one", gpus=1)
    job_id = cluster.submit("ana", gpus=1)
    cluster.fill()
    cluster.forward(HOUR)
    cluster.machines["one"].beats = False
    cluster.forward(60)
    cluster.sweep()
    assert cluster.status(job_id) == ["queued"]
    assert account(cluster)["ana"].gpu_seconds == HOUR + 60


@pytest.mark.parametrize("half_lives", [99, 101, 2000])
def test_who_comes_back_after_many_half_lives_has_used_nothing(cluster: Cluster, half_lives: float) -> None:
    cluster.host("one", gpus=1)
    for _ in range(2):
        job_id = cluster.submit("ana", gpus=1)
        assert cluster.fill() == [job_id]
        cluster.forward(1000)
        cluster.succeed(job_id)
        cluster.forward(half_lives * QueuePolicy().usage_half_life_seconds)
        cluster.submit("ben")
        assert cluster.queue_status().shares["user_ben"].used == 0
        assert account(cluster)["ana"].decayed == pytest.approx(0)
