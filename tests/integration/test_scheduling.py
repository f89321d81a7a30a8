"""The claim and the sweep, by one process and by many at once, and the wake-ups that the sweep sends."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest
import redis
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from service import jobs, scheduling, waiting
from service.broker import MAX_PENDING_WAKES, Broker, queue_name
from service.database import Database
from service.embedded.servers import Valkey
from service.jobs import Fence
from service.lifecycle import Status
from service.scheduling import Claim, Device, Offer, claim
from service.store import Store
from service.sweeper import Sweeper
from service.tables import Job, Worker
from tests.integration.jobs.conftest import Team, Write, cancel, fail, pause, succeed

CPU = Offer("worker_1", "default", cpu_slots=1)
SMALL, LARGE, UNKNOWN = Device("cuda:0", 16.0), Device("cuda:1", 80.0), Device("cuda:2")


@pytest.fixture
def team(database: Database) -> Team:
    return Team(database)


@pytest.fixture
def wakes(valkey_server: Valkey) -> Iterator[redis.Redis]:
    """A Redis without a wake-up in it."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        yield client


def take(team: Team, offer: Offer = CPU) -> Claim | None:
    return team.do(lambda session: claim(session, offer, lease_seconds=300))


def gpu(*devices: Device, cpu_slots: int = 0) -> Offer:
    return Offer("worker_1", "default", cpu_slots=cpu_slots, gpus=devices)


def lose(team: Team, *fences: Fence) -> None:
    """As if their worker had been silent for longer than a lease."""
    ids = [fence.job_id for fence in fences]
    statement = update(Job).where(Job.id.in_(ids)).values(lease_expires_at=text("now() - interval '1 microsecond'"))
    team.do(lambda session: session.execute(statement))


# ---------------------------------------------------------------- the claim


def test_a_claim_takes_the_job_by_the_databases_clock(team: Team) -> None:
    job_id = team.submit()
    with team.database.transaction() as session:
        found = claim(session, CPU, lease_seconds=45)
        assert found is not None
        now = session.scalar(select(func.now()))
        ends = session.scalar(select(func.now() + text("interval '45 seconds'")))
    assert (found.fence, found.devices) == (Fence(job_id, 1), ("cpu",))
    job = team.job(job_id)
    assert (job.status, job.attempt, job.worker_id, job.devices) == ("running", 1, "worker_1", ["cpu"])
    assert (job.started_at, job.lease_expires_at) == (now, ends)
    event = team.events(job_id)[-1]
    assert (event.type, event.data) == ("job.running", {"attempt": 1, "worker": "worker_1", "devices": ["cpu"]})


def test_a_heartbeat_moves_the_lease_by_the_databases_clock(team: Team) -> None:
    fence = team.running()
    with team.database.transaction() as session:
        jobs.renew_lease(session, fence, lease_seconds=7.5)
        ends = session.scalar(select(func.now() + text("interval '7.5 seconds'")))
    assert team.job(fence.job_id).lease_expires_at == ends


def test_priority_comes_first_and_age_second(team: Team) -> None:
    old, low, normal, high, high_too = (
        team.submit(priority=priority) for priority in ("normal", "low", "normal", "high", "high")
    )
    claims = [take(team) for _ in range(6)]
    assert [found and found.fence.job_id for found in claims] == [high, high_too, old, normal, low, None]


def test_a_changed_priority_counts_at_once(team: Team) -> None:
    first, second = team.submit(), team.submit()
    team.do(lambda session: jobs.edit(session, second, priority="high"))
    assert [team.run().job_id, team.run().job_id] == [second, first]


def test_a_job_that_comes_back_goes_before_younger_ones(team: Team) -> None:
    fence = team.running()
    team.submit()
    lose(team, fence)
    team.do(scheduling.sweep)
    assert team.run() == Fence(fence.job_id, 2)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.QUEUED])
def test_only_a_queued_job_is_claimed(team: Team, status: Status) -> None:
    team.bring_to(status)
    assert take(team) is None


def test_an_empty_queue_is_an_empty_claim(team: Team) -> None:
    assert take(team) is None


def test_a_pool_is_served_by_its_own_workers(team: Team) -> None:
    job_id = team.submit(resources={"pool": "lab"})
    assert take(team) is None
    assert team.run(pool="lab").job_id == job_id


@pytest.mark.parametrize(
    ("resources", "offer", "devices"),
    [
        ({}, CPU, ("cpu",)),
        ({}, gpu(LARGE), None),
        ({}, Offer("worker_1", "default", cpu_slots=0), None),
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


def test_a_job_that_fits_is_not_held_up_by_a_better_one_that_does_not(team: Team) -> None:
    team.submit(priority="high", resources={"gpus": 1, "min_gpu_memory_gib": 40.0})
    team.submit(priority="normal", resources={"gpus": 1})
    plain = team.submit(priority="low")
    assert [found and found.fence.job_id for found in (take(team), take(team))] == [plain, None]


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
        offer, fences = Offer(f"worker_at_once_{number}", "default", cpu_slots=1), []
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


# ---------------------------------------------------------------- the sweep


def test_a_lost_job_is_queued_again_without_its_worker(team: Team) -> None:
    fence = team.running(max_attempts=2)
    lose(team, fence)
    assert team.do(scheduling.sweep) is True
    job = team.job(fence.job_id)
    assert (job.status, job.attempt, job.crashes, job.lease_expires_at, job.devices) == ("queued", 1, 1, None, None)
    event = team.events(fence.job_id)[-1]
    assert (event.type, event.data["error"]["code"]) == ("job.queued", "worker_lost")
    assert "worker_1" in event.message


def test_a_job_that_was_lost_max_attempts_times_fails_as_worker_lost(team: Team) -> None:
    job_id = team.submit(max_attempts=2)
    for attempt in (1, 2):
        fence = team.run()
        assert fence == Fence(job_id, attempt)
        lose(team, fence)
        team.do(scheduling.sweep)
    job = team.job(job_id)
    assert (job.status, job.crashes) == ("failed", 2)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert take(team) is None


def test_a_lost_job_that_fails_takes_along_what_needs_it(team: Team) -> None:
    fence = team.running(max_attempts=1)
    needing = team.submit(depends_on=[fence.job_id])
    lose(team, fence)
    team.do(scheduling.sweep)
    assert team.job(needing).error["code"] == "dependency_failed"  # type: ignore[index]


@pytest.mark.parametrize(("ask", "status"), [(cancel, "cancelled"), (pause, "paused")])
def test_what_was_asked_of_a_lost_job_happens_all_the_same(team: Team, ask: Write, status: str) -> None:
    fence = team.running()
    team.do(ask, fence)
    lose(team, fence)
    team.do(scheduling.sweep)
    assert team.status(fence.job_id) == status


def test_a_lease_that_lasts_is_left_alone(team: Team) -> None:
    for status in sorted(Status, key=lambda status: status is Status.QUEUED):  # a queued one would be claimed for the next
        team.bring_to(status)
    before = team.everything()
    assert team.do(scheduling.sweep) is True
    assert team.everything() == before


def test_a_second_sweep_finds_nothing_to_do(team: Team) -> None:
    lose(team, team.running(), team.running())
    team.do(scheduling.sweep)
    before = team.everything()
    team.do(scheduling.sweep)
    assert team.everything() == before


def test_a_sweep_beside_another_leaves_the_work_to_it(team: Team) -> None:
    fence = team.running()
    lose(team, fence)
    with team.database.transaction() as session:
        assert scheduling.sweep(session) is True
        assert team.do(scheduling.sweep) is False
    assert team.job(fence.job_id).crashes == 1


def test_many_sweeps_at_once_take_each_lost_job_once(team: Team) -> None:
    fences = [team.running(max_attempts=2) for _ in range(12)]
    lose(team, *fences)
    barrier = Barrier(8)

    def sweep(_: int) -> bool:
        with team.database.transaction() as session:
            session.connection()
            barrier.wait(60)
            return scheduling.sweep(session)

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(sweep, range(8)))
    for fence in fences:
        assert team.job(fence.job_id).crashes == 1
        assert team.types(fence.job_id) == ["job.queued", "job.running", "job.queued"]


def test_a_lost_job_whose_worker_is_at_its_end_just_now_is_that_workers(team: Team) -> None:
    """The sweep passes over a row that is locked: its attempt may be succeeding at this moment."""
    fence = team.running()
    lose(team, fence)
    with team.database.transaction() as session:
        succeed(session, fence)
        session.flush()
        assert team.do(scheduling.sweep) is True
    assert team.types(fence.job_id) == ["job.queued", "job.running", "job.succeeded"]


def test_a_worker_that_comes_back_after_the_sweep_has_lost_the_job(team: Team) -> None:
    fence = team.running()
    lose(team, fence)
    team.do(scheduling.sweep)
    again = team.run()
    assert team.do(lambda session: jobs.renew_lease(session, fence, lease_seconds=300)) is None
    assert team.do(fail, fence) == "lease_lost"
    assert team.do(succeed, again) == "applied"


def test_a_late_heartbeat_before_the_sweep_saves_the_attempt(team: Team) -> None:
    fence = team.running()
    lose(team, fence)
    assert team.do(lambda session: jobs.renew_lease(session, fence, lease_seconds=300)) is not None
    team.do(scheduling.sweep)
    assert team.status(fence.job_id) == "running"


# ---------------------------------------------------------------- wake-ups


def test_each_pool_with_queued_jobs_and_no_wake_up_gets_one_for_each(team: Team, broker: Broker, wakes: redis.Redis) -> None:
    for pool, count in (("a", 1), ("b", 3)):
        for _ in range(count):
            team.submit(resources={"pool": pool})
    team.submit(resources={"pool": "c"})
    team.run(pool="c")
    with team.database.transaction() as session:
        queued = scheduling.queued_by_pool(session)
    assert queued == {"a": 1, "b": 3}
    broker.wake_forgotten(queued)
    assert [wakes.llen(queue_name(pool)) for pool in "abc"] == [1, 3, 0]
    broker.wake_forgotten(queued)
    assert [wakes.llen(queue_name(pool)) for pool in "abc"] == [1, 3, 0], "those that lie there are enough"


def test_wake_ups_do_not_pile_up_where_nobody_takes_them(broker: Broker, wakes: redis.Redis) -> None:
    broker.wake_forgotten({"a": 10_000})
    assert wakes.llen(queue_name("a")) == MAX_PENDING_WAKES
    broker.wake_forgotten({"a": 10_000})
    assert broker.wake("a", count=5) is True
    assert wakes.llen(queue_name("a")) == MAX_PENDING_WAKES
    wakes.lpop(queue_name("a"), 3)
    broker.wake("a", count=5)
    assert wakes.llen(queue_name("a")) == MAX_PENDING_WAKES


def test_without_redis_a_wake_up_is_lost_and_nothing_else(broker: Broker, valkey_server: Valkey, wakes: redis.Redis) -> None:
    valkey_server.stop()
    try:
        assert broker.wake("a") is False
        broker.wake_forgotten({"a": 1, "b": 1})
    finally:
        valkey_server.start()
    assert broker.wake("a") is True


def test_the_sweeper_puts_a_lost_job_back_and_wakes_a_worker_for_it(
    team: Team, broker: Broker, store: Store, wakes: redis.Redis
) -> None:
    fence = team.running()
    lose(team, fence)
    with Sweeper(team.database, broker, store, interval_seconds=3600):
        assert wakes.blpop([queue_name("default")], timeout=60) is not None
        assert team.status(fence.job_id) == "queued"


def test_the_sweeper_outlives_an_outage_of_the_database(
    team: Team,
    broker: Broker,
    store: Store,
    wakes: redis.Redis,
    postgres_url: str,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fence = team.running()
    lose(team, fence)
    name = database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            with Sweeper(team.database, broker, store, interval_seconds=0.05):
                while "this sweep is left out" not in caplog.text:
                    assert wakes.llen(queue_name("default")) == 0
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
                assert wakes.blpop([queue_name("default")], timeout=60) is not None
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert team.status(fence.job_id) == "queued"


# ---------------------------------------------------------------- workers, as those who wait see them


def test_a_worker_is_alive_for_a_lease_after_its_last_beat(team: Team) -> None:
    with team.database.transaction() as session:
        team.add_worker(session, "worker_stopped", stopped_at=func.now())
        team.add_worker(session, "worker_silent", heartbeat_at=text("now() - interval '46 seconds'"))
        team.add_worker(session, "worker_slow", heartbeat_at=text("now() - interval '30 seconds'"))
    alive = team.do(lambda session: [worker.id for worker in waiting.live_workers(session, lease_seconds=45)])
    assert alive == ["worker_1", "worker_slow"]


@pytest.mark.parametrize(
    ("worker", "resources", "words"),
    [
        ({"heartbeat_at": text("now() - interval '1 hour'")}, {}, "a worker: none is alive in pool 'default'"),
        ({"pool": "lab"}, {}, "a worker: none is alive in pool 'default'"),
        ({}, {"gpus": 1}, "a GPU: no worker of pool 'default' has one"),
        ({"draining": True}, {}, "a CPU slot: every worker of pool 'default' that has one is draining"),
        ({}, {}, "a CPU slot to become free in pool 'default'"),
    ],
)
def test_a_queued_job_tells_the_one_thing_that_it_waits_for(
    team: Team, worker: dict[str, object], resources: dict[str, object], words: str
) -> None:
    job_id = team.submit(resources=resources)
    team.do(lambda session: session.execute(update(Worker).values(**worker)) if worker else None)
    places = team.do(lambda session: waiting.places(session, [jobs.get(session, job_id)], lease_seconds=45))
    assert places[job_id] == waiting.Place(position=1, waiting_for=words)


def test_one_job_and_many_are_given_the_same_places(team: Team) -> None:
    fence = team.bring_to(Status.PAUSED)
    ids = [team.submit(priority=priority) for priority in ("low", "normal", "high", "normal")]
    elsewhere = team.submit(resources={"pool": "lab"})

    def places(*job_ids: str) -> dict[str, int]:
        def look(session: Session) -> dict[str, int]:
            found = waiting.places(session, [jobs.get(session, job_id) for job_id in job_ids], lease_seconds=45)
            return {job_id: place.position for job_id, place in found.items()}

        return team.do(look)

    together = places(*ids, elsewhere, fence.job_id)
    assert list(together.values()) == [4, 2, 1, 3, 1]
    assert together == {job_id: position for one in together for job_id, position in places(one).items()}
    assert places(fence.job_id) == {}
