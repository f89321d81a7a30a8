"""The claim itself: by the database's clock, of queued jobs alone, by many workers at once; and the least device for each job."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, text

from service import jobs
from service.jobs import Fence
from service.lifecycle import Status
from service.scheduling import Claim, Device, Offer, claim
from tests.integration.jobs.conftest import Team

SLOT = Device("cpu:0")
CPU = Offer("worker_1", "default", (SLOT,))
SMALL, LARGE, UNKNOWN = Device("cuda:0", 16.0), Device("cuda:1", 80.0), Device("cuda:2")


def take(team: Team, offer: Offer = CPU) -> Claim | None:
    return team.do(lambda session: claim(session, offer, lease_seconds=300))


def gpu(*devices: Device) -> Offer:
    return Offer("worker_1", "default", devices)


def test_a_claim_takes_the_job_by_the_databases_clock(team: Team) -> None:
    job_id = team.submit()
    with team.database.transaction() as session:
        found = claim(session, CPU, lease_seconds=45)
        assert found is not None
        now = session.scalar(select(func.now()))
        ends = session.scalar(select(func.now() + text("interval '45 seconds'")))
    assert (found.fence, found.devices) == (Fence(job_id, 1), ("cpu:0",))
    job = team.job(job_id)
    assert (job.status, job.attempt, job.worker_id, job.devices) == ("running", 1, "worker_1", ["cpu:0"])
    assert (job.started_at, job.lease_expires_at) == (now, ends)
    event = team.events(job_id)[-1]
    assert event.type == "job.running"
    assert event.data.pop("waited_seconds") >= 0
    assert event.data == {"attempt": 1, "worker": "worker_1", "devices": ["cpu:0"]}


def test_a_heartbeat_moves_the_lease_by_the_databases_clock(team: Team) -> None:
    fence = team.running()
    with team.database.transaction() as session:
        jobs.renew_lease(session, fence, lease_seconds=7.5)
        ends = session.scalar(select(func.now() + text("interval '7.5 seconds'")))
    assert team.job(fence.job_id).lease_expires_at == ends


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.QUEUED])
def test_only_a_queued_job_is_claimed(team: Team, status: Status) -> None:
    team.bring_to(status)
    assert take(team) is None


def test_an_empty_queue_is_an_empty_claim(team: Team) -> None:
    assert take(team) is None


@pytest.mark.parametrize(
    ("resources", "offer", "devices"),
    [
        ({}, CPU, ("cpu:0",)),
        ({}, gpu(LARGE), None),
        ({}, Offer("worker_1", "default", ()), None),
        ({"gpus": 1}, CPU, None),
        ({"gpus": 1}, gpu(SMALL), ("cuda:0",)),
        ({"gpus": 1}, gpu(UNKNOWN), ("cuda:2",)),
        ({"gpus": 1}, gpu(LARGE, SMALL), ("cuda:0",)),
        ({"gpus": 1, "min_gpu_memory_gib": 16.0}, gpu(LARGE, SMALL), ("cuda:0",)),
        ({"gpus": 1, "min_gpu_memory_gib": 16.1}, gpu(SMALL, LARGE), ("cuda:1",)),
        ({"gpus": 1, "min_gpu_memory_gib": 81.0}, gpu(SMALL, LARGE, UNKNOWN), None),
        ({"gpus": 1, "min_gpu_memory_gib": 1.0}, gpu(UNKNOWN), None),
    ],
)
def test_a_job_gets_the_least_device_that_holds_it(
    team: Team, resources: dict[str, object], offer: Offer, devices: tuple[str, ...] | None
) -> None:
    team.submit(resources=resources)
    found = take(team, offer)
    assert (found and found.devices) == devices


def test_a_claim_that_is_rolled_back_leaves_the_job_in_its_place(team: Team) -> None:
    team.submit()
    before = team.everything()
    with pytest.raises(ZeroDivisionError), team.database.transaction() as session:
        assert claim(session, CPU, lease_seconds=300) is not None and 1 / 0  # noqa: PT018
    assert team.everything() == before
    assert team.run().attempt == 1


def test_many_workers_at_once_claim_each_job_once_and_in_order(team: Team) -> None:
    num_workers = 8
    with team.database.transaction() as session:
        for number in range(num_workers):
            team.add_worker(session, f"worker_at_once_{number}")
    submitted = [team.submit(priority=priority) for priority in ("low", "normal", "high") for _ in range(8)]
    barrier = Barrier(num_workers)

    def work(number: int) -> list[Fence]:
        offer, fences = Offer(f"worker_at_once_{number}", "default", (SLOT,)), []
        barrier.wait(60)
        while found := take(team, offer):
            fences.append(found.fence)
        return fences

    with ThreadPoolExecutor(num_workers) as pool:
        by_worker = list(pool.map(work, range(num_workers)))
    taken = [fence for fences in by_worker for fence in fences]
    assert sorted(taken, key=lambda fence: fence.job_id) == [Fence(job_id, 1) for job_id in sorted(submitted)]
    # The numbers of transactions that wrote are in the order in which they got the pool to themselves.
    order = "SELECT id FROM jobs ORDER BY xmin::text::bigint"
    low, normal, high = submitted[:8], submitted[8:16], submitted[16:]
    assert team.do(lambda session: list(session.scalars(text(order)))) == [*high, *normal, *low]
    for number, fences in enumerate(by_worker):
        for fence in fences:
            assert team.job(fence.job_id).worker_id == f"worker_at_once_{number}"
            assert team.types(fence.job_id) == ["job.queued", "job.running"]


def test_a_claim_waits_for_another_of_its_pool_and_sees_what_that_charged(team: Team) -> None:
    first, _ = team.submit(), team.submit()
    bens = team.submit(owner="ben")
    with team.database.transaction() as session:
        team.add_worker(session, "worker_2")
    with ThreadPoolExecutor(1) as pool:
        with team.database.transaction() as session:
            found = claim(session, CPU, lease_seconds=300)
            assert found is not None
            assert found.fence.job_id == first
            second = pool.submit(take, team, Offer("worker_2", "default", (SLOT,)))
            waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            while not second.done() and not team.do(lambda other: other.scalar(waiting)):
                pass
        claimed = second.result()
    assert claimed is not None
    assert claimed.fence.job_id == bens
