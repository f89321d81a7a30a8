"""Who holds what: several jobs on a host, a job on several devices, a host that is kept free, a host that is emptied."""

import psutil

from service.client import Client
from tests.acceptance.queue.conftest import LONG, RESUMABLE, SHORT, SLOTS, Site

HALF_MINUTE = {"max_runtime_seconds": 30}


def test_jobs_share_the_devices_of_a_host_and_what_finds_none_is_told_who_has_them(site: Site) -> None:
    running = [site.hold(site.ben, cpu_slots=slots) for slots in (2, 2, 1, 1)]
    held = {worker_id: site.held(worker_id) for worker_id in site.workers}
    for job in running:
        assert job.worker is not None
        assert job.devices is not None
        assert [name for name, holders in held[job.worker].items() if holders == [job.id]] == job.devices
    assert sum(len(holders) for devices in held.values() for holders in devices.values()) == 2 * SLOTS

    late = site.eva.submit(SHORT)
    explanation = site.until_waits(late.id, "devices")
    assert explanation.position == 1
    assert explanation.needs == "a CPU slot"
    assert set(explanation.blocker.job_ids) == {job.id for job in running if job.worker == explanation.blocker.worker}
    later = site.eva.submit(SHORT)
    assert site.until_waits(later.id, "jobs_ahead").blocker.job_ids == [late.id]
    assert [job.id for job in site.eva.queue().waiting] == [late.id, later.id]

    site.cancel(site.ben, running[-1].id)
    assert site.eva.wait(late.id, timeout_seconds=90).status == "succeeded"


def test_a_rank_that_dies_ends_the_other_and_the_attempt_and_the_job_goes_on_to_the_same_student(site: Site) -> None:
    spec = RESUMABLE | {"training": RESUMABLE["training"] | {"max_steps": 250}}
    killed = site.run(site.ben, spec, cpu_slots=2)
    ranks = site.trainers()
    assert len(ranks) == 2
    site.until_event(killed.id, "checkpoint", phase="student")
    ranks[1].kill()
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive
    ended = site.ben.wait(killed.id, timeout_seconds=90)
    assert (ended.status, ended.attempt) == ("succeeded", 2)
    log = "\n".join(site.ben.logs(killed.id))
    assert "Resuming at step" in log
    undisturbed = site.ben.wait(site.ben.submit(spec | {"resources": {"cpu_slots": 2}}).id, timeout_seconds=90)
    assert site.student(killed.id) == site.student(undisturbed.id)


def test_a_host_is_kept_for_a_job_that_needs_all_of_it_and_only_what_ends_before_may_pass(site: Site) -> None:
    first, second = site.workers
    site.ada.drain(second, finish=True)
    one = site.hold(site.ben)
    site.ada.undrain(second)
    site.ada.drain(first, finish=True)
    other = site.hold(site.ben)
    site.ada.undrain(first)
    assert (one.worker, other.worker) == (first, second)

    large = site.eva.submit(LONG | {"resources": {"cpu_slots": SLOTS}})
    kept = site.until_event(large.id, "job.host_kept")["worker"]
    waits = site.until_waits(large.id, "devices")
    holder, elsewhere = (one, other) if kept == one.worker else (other, one)
    assert "is kept free for it" in waits.waiting_for
    assert (waits.blocker.job_ids, waits.blocker.worker) == ([holder.id], kept)

    fills = site.hold(site.ben, cpu_slots=SLOTS - 1)
    assert fills.worker == elsewhere.worker
    endless = site.ben.submit(LONG)
    assert site.until_waits(endless.id, "kept_host").blocker.job_ids == [large.id]
    short = site.ben.submit(SHORT | {"resources": HALF_MINUTE})
    assert site.ben.wait(short.id, timeout_seconds=90).status == "succeeded"
    assert site.ben.job(short.id).worker == kept
    assert site.until_waits(large.id, "devices").blocker.worker == kept

    site.cancel(site.ben, holder.id)
    assert site.until_trains(large.id).worker == kept
    assert site.until_waits(endless.id, "devices").position == 1


def test_a_drained_host_lets_go_of_its_jobs_and_they_end_elsewhere_as_if_nothing_had_been(site: Site, undisturbed: str) -> None:
    job = site.run(site.ben, RESUMABLE)
    assert job.worker is not None
    (other,) = {*site.workers} - {job.worker}
    site.ada.drain(job.worker)
    ended = site.ben.wait(job.id, timeout_seconds=90)
    assert (ended.status, ended.worker, ended.attempt) == ("succeeded", other, 2)
    assert site.student(job.id) == undisturbed

    site.ada.drain(other)
    waiting = site.eva.submit(SHORT)
    assert "draining" in site.until_waits(waiting.id, "draining").waiting_for
    site.ada.undrain(other)
    assert site.eva.wait(waiting.id, timeout_seconds=90).worker == other


def test_a_host_that_drains_at_its_leisure_ends_what_it_runs_and_takes_nothing_new(site: Site) -> None:
    job = site.run(site.ben, RESUMABLE)
    assert job.worker is not None
    site.ada.drain(job.worker, finish=True)
    (other,) = {*site.workers} - {job.worker}
    new = _done(site.eva, SHORT)
    assert new == other
    ended = site.ben.wait(job.id, timeout_seconds=90)
    assert (ended.status, ended.worker, ended.attempt) == ("succeeded", job.worker, 1)


def _done(client: Client, spec: dict[str, object]) -> str | None:
    return client.wait(client.submit(spec).id, timeout_seconds=90).worker
