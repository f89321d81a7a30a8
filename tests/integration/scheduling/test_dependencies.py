"""Jobs that wait for other jobs: by ``depends_on``, or for a teacher that is a job."""

import pytest

from service.errors import CircularDependency, InvalidTransition
from service.preflight import claim_check, pass_check
from tests.integration.scheduling.cluster import Cluster
from tests.integration.scheduling.oracle import LEASE_SECONDS

ESTIMATE = {"memory_gib": None}


def check(cluster: Cluster, job_id: str) -> None:
    """Its check is taken and passes."""
    taken = cluster.do(lambda session: claim_check(session, "cpu-1", "default", lease_seconds=LEASE_SECONDS))
    assert taken is not None
    assert taken.job.id == job_id
    cluster.do(lambda session: pass_check(session, taken.fence, ESTIMATE, memory_seconds=600))


def test_a_job_waits_for_what_it_needs_and_its_age_begins_then(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=2)
    needed = cluster.submit()
    waits = cluster.submit(depends_on=[needed])
    other = cluster.submit()
    assert cluster.fill() == [needed, other]
    assert cluster.job(waits).status_reason == f"waits for {needed}"
    cluster.forward(60)
    younger = cluster.submit()
    cluster.forward(60)
    cluster.succeed(needed)
    assert cluster.order() == [younger, waits]
    assert cluster.fill() == [younger]


def test_a_teacher_that_is_a_job_is_waited_for(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=2)
    teacher = cluster.submit()
    student = cluster.submit(teacher={"source": f"job:{teacher}"})
    assert cluster.fill() == [teacher]
    assert cluster.status(student) == ["waiting"]
    cluster.succeed(teacher)
    assert cluster.fill() == [student]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_chain_fails_with_its_first_link(cluster: Cluster, end: str) -> None:
    cluster.host("cpu-1", slots=1)
    first = cluster.submit()
    second = cluster.submit(teacher={"source": f"job:{first}"})
    third = cluster.submit("ben", depends_on=[second])
    cluster.fill()
    if end == "fail":
        cluster.fail(first)
    else:
        cluster.cancel(first)
        cluster.stop(first, "cancel")
    for job_id, needed, word in ((second, first, "failed" if end == "fail" else "cancelled"), (third, second, "failed")):
        error = cluster.job(job_id).error
        assert error is not None
        assert (error["code"], error["message"]) == ("dependency_failed", f"job {needed}, which it needs, is {word}")
    assert cluster.fill() == []


def test_what_is_preempted_or_paused_may_still_succeed(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    needed = cluster.submit(priority="low")
    waits = cluster.submit(depends_on=[needed])
    cluster.fill()
    high = cluster.submit("ben", priority="high")
    assert cluster.sweep() == [needed]
    cluster.stop(needed)
    assert cluster.fill() == [high]
    cluster.pause(needed)
    assert cluster.status(needed, waits) == ["paused", "waiting"]


def test_a_job_whose_need_failed_while_it_was_checked_fails_at_once(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    needed = cluster.submit()
    cluster.fill()
    job_id = cluster.submit(preflight=True, depends_on=[needed])
    last = cluster.submit(preflight=True, depends_on=[job_id])
    cluster.fail(needed)
    error = cluster.job(job_id).error
    assert error is not None
    assert (error["code"], error["message"]) == ("dependency_failed", f"job {needed}, which it needs, is failed")
    assert cluster.status(last) == ["failed"]


def test_a_job_is_checked_first_and_waits_then(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    needed = cluster.submit()
    job_id = cluster.submit(preflight=True, depends_on=[needed])
    check(cluster, job_id)
    assert cluster.types(job_id)[-1] == "job.waiting"
    cluster.fill()
    cluster.succeed(needed)
    assert cluster.status(job_id) == ["queued"]


def test_what_a_queued_job_depends_on_may_be_changed_and_it_moves(cluster: Cluster) -> None:
    cluster.host("cpu-1", slots=1)
    first, second = cluster.submit(), cluster.submit()
    cluster.edit(first, depends_on=[second])
    assert cluster.job(first).status_reason == f"waits for {second}"
    assert cluster.fill() == [second]
    cluster.edit(first, depends_on=[])
    assert cluster.status(first) == ["queued"]
    cluster.succeed(second)
    assert cluster.fill() == [first]
    with pytest.raises(InvalidTransition, match="before it starts"):
        cluster.edit(first, depends_on=[])


def test_a_circle_is_refused_with_its_links(cluster: Cluster) -> None:
    first = cluster.submit()
    second = cluster.submit(depends_on=[first])
    third = cluster.submit(depends_on=[second])
    with pytest.raises(CircularDependency, match=f"{first} needs {third} needs {second} needs {first}.*leave {third} out"):
        cluster.edit(first, depends_on=[third])
    assert cluster.status(first, second, third) == ["queued", "waiting", "waiting"]


def test_a_job_that_waits_for_others_counts_as_waiting_for_its_owners_limit_only(cluster: Cluster) -> None:
    needed = cluster.submit()
    waits = cluster.submit(depends_on=[needed])
    assert cluster.order() == [needed]
    assert cluster.job(waits).waiting_since is None
