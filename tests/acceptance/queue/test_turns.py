"""Whose turn it is: shares, priorities, what waits for another job, what its owner takes out of the queue."""

import threading
from collections.abc import Callable

import pytest

from service.client import ApiError
from tests.acceptance.queue.conftest import LONG, RESUMABLE, SHORT, SLOTS, Site


def together(*calls: Callable[[], object]) -> None:
    """All at the same moment."""
    barrier = threading.Barrier(len(calls))

    def call(each: Callable[[], object]) -> None:
        barrier.wait()
        each()

    threads = [threading.Thread(target=call, args=[each]) for each in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_a_hundred_jobs_and_one_that_are_posted_at_the_same_moment_the_one_starts_next(site: Site) -> None:
    first, second = site.workers
    site.hold(site.ben)
    for worker_id in (first, second):
        site.ada.drain(worker_id, finish=True)
    many: list[str] = []
    one: list[str] = []
    together(
        lambda: many.extend(site.ben.submit(SHORT).id for _ in range(100)),
        lambda: one.append(site.eva.submit(SHORT).id),
    )
    assert site.ada.explain(one[0]).position == 1
    queue = site.ada.queue().waiting
    assert len(queue) == 101
    assert {job.blocker.cause for job in queue} == {"draining"}
    assert sorted(job.position for job in queue) == list(range(1, 102))

    site.ada.undrain(first)
    assert site.eva.wait(one[0], timeout_seconds=90).status == "succeeded"
    began = site.eva.job(one[0]).started_at
    assert began is not None
    first_of_many = site.ada.wait(min(many), timeout_seconds=90).started_at
    assert first_of_many is not None
    assert began < first_of_many
    assert all(began < job.started_at for job in site.ada.jobs() if job.id in many and job.started_at is not None)


def test_a_job_of_high_priority_stops_a_low_one_which_ends_later_as_if_nothing_had_been(site: Site, undisturbed: str) -> None:
    low = site.run(site.ben, RESUMABLE | {"priority": "low"})
    assert low.worker is not None
    (other,) = {*site.workers} - {low.worker}
    site.ada.drain(low.worker, finish=True)
    normal = site.hold(site.ben)
    site.ada.undrain(low.worker)
    assert normal.worker == other

    with pytest.raises(ApiError, match="admin's to give"):
        site.eva.submit(LONG | {"priority": "high"})
    high = site.ada.submit(LONG | {"priority": "high", "resources": {"cpu_slots": SLOTS}})
    stopped = site.until_status(low.id, "queued")
    assert site.until_trains(high.id).worker == low.worker
    site.stand_still(high, site.trainers(low.worker))
    assert site.until_event(low.id, "job.stop_requested", stop="preempt")["by"] == high.id
    assert stopped.attempt == 1
    ended = site.ben.wait(low.id, timeout_seconds=90)
    assert (ended.status, ended.attempt, ended.worker) == ("succeeded", 2, other)
    assert site.student(low.id) == undisturbed
    assert site.ada.job(normal.id).attempt == 1


def test_a_paused_job_leaves_its_devices_and_ends_later_as_if_nothing_had_been(site: Site, undisturbed: str) -> None:
    job = site.run(site.ben, RESUMABLE)
    site.ben.pause(job.id)
    site.until_status(job.id, "paused")
    assert not any(holders for worker_id in site.workers for holders in site.held(worker_id).values())
    told = site.ada.explain(job.id)
    assert (told.status, told.position, told.blocker) == ("paused", None, None)
    site.ben.resume(job.id)
    assert site.ben.wait(job.id, timeout_seconds=90).attempt == 2
    assert site.student(job.id) == undisturbed


def test_a_job_waits_for_the_one_that_it_depends_on_and_for_the_one_that_trains_its_teacher(site: Site) -> None:
    teacher = site.hold(site.ben)
    after = site.eva.submit(SHORT | {"depends_on": [teacher.id]})
    taught = site.eva.submit(SHORT | {"teacher": {"source": f"job:{teacher.id}"}})
    for job in (after, taught):
        told = site.ada.explain(job.id)
        assert (told.status, told.blocked_by) == ("waiting", [teacher.id])
        assert teacher.id in told.reason
    quick = site.ben.submit(SHORT)
    following = site.eva.submit(SHORT | {"depends_on": [quick.id], "teacher": {"source": f"job:{quick.id}"}})
    assert site.eva.wait(following.id, timeout_seconds=90).status == "succeeded"
    began, before = site.eva.job(following.id).started_at, site.ben.job(quick.id).finished_at
    assert began is not None
    assert before is not None
    assert began > before

    site.cancel(site.ben, teacher.id)
    for job in (after, taught):
        failed = site.eva.wait(job.id, timeout_seconds=90)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.code == "dependency_failed"
        assert teacher.id in failed.error.message


def test_jobs_over_their_owners_limit_wait_for_one_of_the_owners_own(site: Site) -> None:
    running = site.hold(site.ben)
    assert running.owner is not None
    site.ada.edit_user(running.owner, max_running_jobs=1)
    waiting = site.ben.submit(SHORT)
    told = site.until_waits(waiting.id, "user_limit")
    assert "1 run or start now, and 1 may" in told.waiting_for
    assert site.eva.wait(site.eva.submit(SHORT).id, timeout_seconds=90).status == "succeeded"
    site.cancel(site.ben, running.id)
    assert site.ben.wait(waiting.id, timeout_seconds=90).status == "succeeded"
