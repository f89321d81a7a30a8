"""The wake-ups that the sweep sends, and what the sweeper survives."""

import threading
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy.orm import Session

from service import jobs, scheduling
from service.broker import MAX_PENDING_WAKES, Broker, queue_name
from service.embedded.servers import Valkey
from service.scheduling import Device, Offer, claim
from service.store import Store
from service.sweeper import Sweeper
from tests.faults.disks import hanging
from tests.faults.waiting import until
from tests.integration.jobs.conftest import Team, fail, student
from tests.integration.jobs.conftest import lose as lose_attempt
from tests.integration.scheduling.conftest import lose

SLOT = Device("cpu:0")


def test_each_pool_gets_a_wake_up_for_each_free_device_that_is_wanted(team: Team, broker: Broker, wakes: redis.Redis) -> None:
    slots = [{"name": f"cpu:{slot}", "kind": "cpu", "memory_gib": None} for slot in range(2)]
    with team.database.transaction() as session:
        for pool in "abcd":
            team.add_worker(session, f"worker_{pool}", pool=pool, devices=slots, draining=pool == "d")
    for pool, count in (("a", 1), ("b", 3), ("d", 1), ("e", 1)):
        for _ in range(count):
            team.submit(resources={"pool": pool})
    for _ in range(3):
        team.submit(resources={"pool": "c"})
    with team.database.transaction() as session:
        assert claim(session, Offer("worker_c", "c", (SLOT,)), lease_seconds=300) is not None
    due = team.do(lambda session: scheduling.wakes_due(session, lease_seconds=45))
    assert due == {"a": 1, "b": 2, "c": 1}, "a busy device, a draining worker and a pool without one need none"
    broker.wake_forgotten(due)
    assert [wakes.llen(queue_name(pool)) for pool in "abc"] == [1, 2, 1]
    broker.wake_forgotten(due)
    assert [wakes.llen(queue_name(pool)) for pool in "abc"] == [1, 2, 1], "those that lie there are enough"


def test_a_pool_whose_jobs_wait_for_a_check_is_woken_however_many_wait_in_others(team: Team) -> None:
    for pool, count in (("alpha", 120), ("zeta", 1)):
        for _ in range(count):
            team.submit(preflight=True, resources={"pool": pool})
    assert team.do(lambda session: scheduling.wakes_due(session, lease_seconds=45)) == {"alpha": 1, "zeta": 1}


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
    with Sweeper(team.database, broker, store, interval_seconds=3600, lease_seconds=45):
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
            with Sweeper(team.database, broker, store, interval_seconds=0.05, lease_seconds=45):
                while "this sweep is left out" not in caplog.text:
                    assert wakes.llen(queue_name("default")) == 0
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
                assert wakes.blpop([queue_name("default")], timeout=60) is not None
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert team.status(fence.job_id) == "queued"


def test_a_store_that_hangs_holds_up_nothing_else_that_a_sweep_does(team: Team, broker: Broker, tmp_path: Path) -> None:
    fence = team.running()
    file = tmp_path / "state"
    file.touch()
    store = Store(f"file://{tmp_path}/store")
    stored = store.put(file, "jobs/x/state")
    team.do(lambda session: jobs.record_checkpoint(session, fence, stored, phase="student", step=7))
    team.do(fail, fence)
    with ExitStack() as frozen:
        frozen.enter_context(hanging(tmp_path / "store"))
        with Sweeper(team.database, broker, store, interval_seconds=0.05, lease_seconds=45):
            until(
                lambda: "sweeper's files" in {each.name for each in threading.enumerate()}, "no file is due", timeout_seconds=60
            )
            fence = team.running()
            lose(team, fence)
            until(lambda: team.status(fence.job_id) == "queued", "the sweep waits for the store", timeout_seconds=60)
            frozen.close()
            until(lambda: team.do(jobs.spent_checkpoints) == {}, "it is still there", timeout_seconds=60)


def test_the_sweeper_removes_a_spent_checkpoint_once_the_store_is_back(
    team: Team, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, file = tmp_path / "store", tmp_path / "state"
    file.touch()
    store = Store(f"file://{folder}")
    fence = team.running()
    stored = store.put(file, "jobs/x/state")
    team.do(lambda session: jobs.record_checkpoint(session, fence, stored, phase="student", step=7))
    team.do(fail, fence)
    away = folder.rename(tmp_path / "away")
    with Sweeper(team.database, broker, store, interval_seconds=0.05, lease_seconds=45):
        until(lambda: "this sweep is left out, the store does not answer" in caplog.text, "nothing was said", timeout_seconds=60)
        away.rename(folder)
        until(lambda: team.do(jobs.spent_checkpoints) == {}, "it is still there", timeout_seconds=60)
    assert not (folder / "jobs").exists()
    assert not [record for record in caplog.records if record.exc_info], "that it is away is nobody's fault"


def test_the_sweeper_removes_what_lost_attempts_left_and_nothing_that_a_row_names(
    team: Team, broker: Broker, tmp_path: Path
) -> None:
    file, store = tmp_path / "state", Store(f"file://{tmp_path}/store")
    file.touch()
    fence = team.running()
    place = f"jobs/{fence.job_id}"
    for key in (f"{place}/1/lost", f"{place}/1/student/lost", f"{place}9/1/of-another-job"):
        store.put(file, key)
    kept = [store.put(file, f"{place}/2/report.json"), store.put(file, f"{place}/2/student/weights")]
    half_written = tmp_path / "store" / place / "1" / ".0123456789abcdef.partial"
    half_written.touch()
    team.do(lose_attempt, fence)
    again = team.run()

    def end(session: Session) -> None:
        model = student(session, again)
        model.files = [{"name": "weights", "path": kept[1].path}]
        jobs.succeed(session, again, result={}, files=kept[:1], models=[model])

    team.do(end)
    with Sweeper(team.database, broker, store, interval_seconds=0.05, lease_seconds=0.1):
        until(lambda: team.job(fence.job_id).tidied, "nobody has looked", timeout_seconds=60)
    left = {str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store" / "jobs").rglob("*") if path.is_file()}
    assert left == {file.path for file in kept} | {f"{place}9/1/of-another-job"}
