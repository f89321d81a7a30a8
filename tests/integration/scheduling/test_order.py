"""Whose turn it is: class, then what was used for the weight, then the job's own priority, then age."""

from typing import Any

import pytest

from service.queue_policy import QueuePolicy
from service.tables import Usage
from tests.integration.scheduling.cluster import HOUR, Cluster

DEFAULT = QueuePolicy()


def run_through(cluster: Cluster, host: str, seconds: float = 60) -> list[str]:
    """Serves the queue with one device, job by job."""
    ran = []
    while (job_id := cluster.claim(host)) is not None:
        ran.append(job_id)
        cluster.forward(seconds)
        cluster.succeed(job_id)
    return ran


def use(cluster: Cluster, owner: str, host: str, seconds: float, **changes: Any) -> None:
    """The owner's job runs for so long, with nothing else in the queue."""
    job_id = cluster.submit(owner, **changes)
    assert cluster.claim(host) == job_id
    cluster.forward(seconds)
    cluster.succeed(job_id)


def used(cluster: Cluster, owner: str) -> float:
    """As it stood when it was written down last."""
    return float(cluster.do(lambda session: session.get_one(Usage, f"user_{owner}").amount))


def test_of_a_hundred_jobs_and_one_posted_at_the_same_moment_the_one_starts_next(cluster: Cluster) -> None:
    hundred = cluster.submit_many(100, "ana", gpus=1)
    one = cluster.submit("ben", gpus=1)
    cluster.host("gpu-1", gpus=2)
    place = cluster.place(one)
    assert (place.position, place.blocker.reason) == (2, "starting")
    assert cluster.fill() == [hundred[0], one]
    assert cluster.order() == hundred[1:]
    assert cluster.place(hundred[1]).blocker.message == "a GPU: host gpu-1 has 0 free until about 03 Mar 08:00 UTC"
    assert cluster.place(hundred[99]).blocker.message == f"98 jobs that start earlier for the same devices; {hundred[1]} is next"


def test_what_waits_is_told_in_the_order_that_it_has_once_the_others_have_started(cluster: Cluster) -> None:
    cluster.host("both", gpus=1, slots=1)
    cluster.submit("cleo")
    cluster.claim("both")
    first, on_gpu, other = cluster.submit("ben"), cluster.submit("ben", gpus=1), cluster.submit("dan")
    assert cluster.place(on_gpu).blocker.reason == "starting"
    assert cluster.order() == [other, on_gpu, first], "what starts on the GPU is charged to ben, so dan goes before him"
    assert cluster.place(first).blocker.job_ids == (other,)
    cluster.check()
    assert cluster.fill() == [on_gpu]
    assert cluster.order() == [other, first]


@pytest.mark.parametrize("first", ["ana", "ben"])
def test_whoever_posts_first_the_one_is_among_the_first_two(cluster: Cluster, first: str) -> None:
    cluster.host("gpu-1", gpus=1)
    mine = {}
    for owner in (first, "ben" if first == "ana" else "ana"):
        mine[owner] = cluster.submit_many(20 if owner == "ana" else 1, owner, gpus=1)
    first_two = [cluster.claim("gpu-1")]
    cluster.forward(HOUR)
    cluster.succeed(str(first_two[0]))
    first_two.append(cluster.claim("gpu-1"))
    assert mine["ben"][0] in first_two


def test_a_class_goes_before_every_share(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    use(cluster, "ana", "gpu-1", HOUR, gpus=1)
    low, normal = cluster.submit("ben", gpus=1, priority="low"), cluster.submit("ben", gpus=1)
    high, normal_too = cluster.submit("ana", gpus=1, priority="high"), cluster.submit("ana", gpus=1)
    assert cluster.order() == [high, normal, normal_too, low]
    assert run_through(cluster, "gpu-1") == [high, normal, normal_too, low]


def test_within_a_share_the_jobs_own_priority_counts_and_then_age(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    old, low, normal, high, high_too = (
        cluster.submit(priority=priority) for priority in ("normal", "low", "normal", "high", "high")
    )
    assert cluster.order() == [high, high_too, old, normal, low]
    assert run_through(cluster, "cpu-1", 0) == [high, high_too, old, normal, low]


def test_a_changed_priority_counts_at_once(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    first, second = cluster.submit(), cluster.submit()
    cluster.edit(second, priority="high")
    assert cluster.order() == [second, first]
    assert run_through(cluster, "cpu-1") == [second, first]


def test_who_used_less_goes_first_whoever_waits_longer(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    use(cluster, "ana", "gpu-1", 2 * HOUR, gpus=1)
    use(cluster, "ben", "gpu-1", HOUR, gpus=1)
    ana = cluster.submit("ana", gpus=1)
    cluster.forward(HOUR)
    ben, cem = cluster.submit("ben", gpus=1), cluster.submit("cem", gpus=1)
    assert cluster.order() == [cem, ben, ana]
    assert run_through(cluster, "gpu-1") == [cem, ben, ana]


def test_a_weight_of_two_gives_two_starts_for_one(cluster: Cluster) -> None:
    cluster.user("ana", weight=2)
    cluster.user("ben")
    cluster.host("gpu-1", gpus=1)
    anas, bens = cluster.submit_many(8, "ana", gpus=1), cluster.submit_many(8, "ben", gpus=1)
    told = cluster.order()
    ran = run_through(cluster, "gpu-1", HOUR)
    first = ran[:9]
    assert (len(set(first) & set(anas)), len(set(first) & set(bens))) == (6, 3)
    assert told[:3] == ran[:3]
    assert set(ran) == {*anas, *bens}


def test_what_runs_now_counts_from_its_start(cluster: Cluster) -> None:
    """A start is charged ahead of time, so a second one does not slip in before the first is accounted for."""
    cluster.host("gpu-1", gpus=4)
    anas = cluster.submit_many(4, "ana", gpus=1)
    assert cluster.claim("gpu-1") == anas[0]
    ben = cluster.submit("ben", gpus=1)
    assert cluster.claim("gpu-1") == ben
    assert used(cluster, "ana") == used(cluster, "ben") == DEFAULT.entry_seconds


def test_a_heartbeat_charges_what_runs_on_and_the_end_gives_back_what_was_too_much(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=3)
    long, short = cluster.submit("ana", gpus=2), cluster.submit("ben", gpus=1)
    cluster.fill()
    cluster.forward(60)
    cluster.succeed(short)
    assert used(cluster, "ben") == pytest.approx(60, rel=1e-3)
    assert used(cluster, "ana") == pytest.approx(2 * DEFAULT.entry_seconds), "no more than the entry amount so far"
    cluster.forward(2 * HOUR)
    assert used(cluster, "ana") == pytest.approx(2 * (2 * HOUR + 60), rel=0.01)
    mine, bens = cluster.submit("ana", gpus=1), cluster.submit("ben", gpus=1)
    assert cluster.order() == [bens, mine]
    cluster.succeed(long)


def test_use_loses_half_of_its_weight_in_each_half_life(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    use(cluster, "ana", "gpu-1", 10 * HOUR, gpus=1)
    cluster.forward(DEFAULT.usage_half_life_seconds)
    use(cluster, "ben", "gpu-1", 6 * HOUR, gpus=1)
    ana, ben = cluster.submit("ana", gpus=1), cluster.submit("ben", gpus=1)
    assert cluster.order() == [ana, ben], "of ana's ten hours five are left"
    assert cluster.used(ana) == pytest.approx(5 * HOUR * 2 ** (-6 / 168), rel=0.01)
    cluster.cancel(ana)
    use_again = cluster.submit("ana", gpus=1)
    cluster.forward(DEFAULT.usage_half_life_seconds)
    assert cluster.used(use_again) == pytest.approx(2.5 * HOUR * 2 ** (-6 / 168), rel=0.01)


def test_a_slot_of_a_cpu_counts_a_tenth_of_a_gpu(cluster: Cluster) -> None:
    cluster.host("one", gpus=1, slots=4)
    use(cluster, "ana", "one", HOUR, cpu_slots=4)
    use(cluster, "ben", "one", HOUR, gpus=1)
    assert used(cluster, "ana") == pytest.approx(0.4 * used(cluster, "ben"), rel=0.01)


def test_a_job_that_was_lost_goes_before_the_younger_ones_of_its_owner(cluster: Cluster) -> None:
    cluster.host("gpu-1", gpus=1)
    job_id = cluster.submit("ana", gpus=1)
    cluster.claim("gpu-1")
    younger = cluster.submit("ana", gpus=1)
    cluster.forward(HOUR)
    cluster.crash(job_id)
    assert cluster.order() == [job_id, younger]
    assert cluster.claim("gpu-1") == job_id


def test_places_count_the_turns_as_the_starts_will_be_charged(cluster: Cluster) -> None:
    cluster.user("ana", weight=3)
    for owner, count, gpus in (("ana", 4, 1), ("ben", 4, 1), ("cem", 2, 4)):
        cluster.submit_many(count, owner, gpus=gpus)
    told = cluster.order()
    cluster.host("endless", gpus=20)
    assert cluster.fill() == told
