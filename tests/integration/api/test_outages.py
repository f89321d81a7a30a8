"""Redis or the database away: submits go on, or every answer says so; nothing hangs, nothing is a 500."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import psycopg
import pytest
import redis

from service import workers
from service.broker import Broker, queue_name
from service.database import Database
from service.embedded.servers import Valkey
from service.settings import Settings
from tests.integration.api.conftest import spec, submit
from tests.integration.database_faults import frozen, read_only, terminate


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """Three seconds for an answer of the database."""
    return settings.model_copy(update={"database_seconds": 3.0})


@pytest.fixture
def without_redis(valkey_server: Valkey) -> Iterator[None]:
    valkey_server.stop()
    yield
    valkey_server.start()


@pytest.fixture
def without_database(database_url: str, postgres_url: str) -> Iterator[None]:
    """Nobody may connect to the module's database, and who was connected is thrown out."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


def test_everything_is_there(member: httpx.Client) -> None:
    assert member.get("/healthz").json() == {"status": "ok"}
    ready = member.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready", ready.text
    assert set(ready.json()["checks"]) == {"database", "redis", "store"}


def test_a_submit_succeeds_without_redis_and_reads_go_on(member: httpx.Client, without_redis: None) -> None:
    job = submit(member)
    assert member.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    waited = member.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": f'"{job["version"]}"', "Prefer": "wait=5"})
    assert waited.json()["status"] == "cancelled"
    ready = member.get("/readyz")
    assert ready.status_code == 200
    assert (ready.json()["status"], ready.json()["checks"]["redis"]["ok"]) == ("degraded", False)


def test_a_redis_that_wants_another_password_degrades_the_service_and_no_more(
    member: httpx.Client, valkey_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(valkey_server.url) as client:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            ready = member.get("/readyz")
            job = submit(member)
        finally:
            client.config_set("requirepass", "")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "AuthenticationError" in ready.json()["checks"]["redis"]["detail"]
    assert "cannot be used as it is set up" in caplog.text
    assert member.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_the_sweep_wakes_a_worker_for_a_job_whose_wake_up_was_lost(
    member: httpx.Client, valkey_server: Valkey, broker: Broker, database: Database
) -> None:
    with database.transaction() as session:
        slots = [{"name": "cpu:0", "kind": "cpu", "memory_gib": None}]
        workers.register(session, "worker_idle", host="here", pid=1, pool="forgotten", devices=slots)
    job = submit(member, resources={"pool": "forgotten"})
    valkey_server.stop()
    valkey_server.start()  # it keeps nothing
    with (
        closing(broker.celery.connection_for_read()) as connection,
        closing(connection.SimpleQueue(queue_name("forgotten"))) as queue,
    ):
        message = queue.get(timeout=20)
        message.ack()
    assert message.payload[0] == ["forgotten"]
    assert member.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"


Ask = Callable[[httpx.Client], httpx.Response]
FORM = {"name": "rows", "task": "text-classification"}
READS: list[Ask] = [
    lambda client: client.get("/v1/jobs"),
    lambda client: client.get("/v1/jobs/job_00000000000000000000000000/events", headers={"Accept": "text/event-stream"}),
    lambda client: client.get("/v1/me"),
    lambda client: client.get("/v1/datasets"),
]
WRITES: list[Ask] = [
    lambda client: client.post("/v1/jobs", json=spec()),
    lambda client: client.post("/v1/datasets", data=FORM, files={"file": ("rows.csv", b"text,label\na,0\nb,1\n" * 8)}),
]


def assert_away(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "unavailable"
    assert answer.json()["detail"] == "the database cannot be used at this moment; try again"
    assert int(answer.headers["retry-after"]) > 0


def assert_unready(client: httpx.Client, words: str) -> None:
    """The API knows that it cannot be used, and lives."""
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert words in ready.json()["checks"]["database"]["detail"]
    assert client.get("/healthz").status_code == 200


def assert_works(client: httpx.Client) -> None:
    """As soon as the API has noticed."""
    while client.get("/readyz").status_code == 503 or (answer := client.post("/v1/jobs", json=spec())).status_code == 503:
        pass
    assert answer.status_code == 201, answer.text
    assert [ask(client).status_code for ask in READS[2:]] == [200, 200]


def test_every_route_is_503_without_the_database(member: httpx.Client, without_database: None) -> None:
    for ask in READS + WRITES:
        assert_away(ask(member))
    assert_unready(member, "does not answer")


def test_it_works_again_when_the_database_is_back(member: httpx.Client) -> None:
    assert_works(member)


def test_a_frozen_database_is_503_for_everyone_also_with_every_connection_in_use(member: httpx.Client, postgres_url: str) -> None:
    assert_works(member)
    with ThreadPoolExecutor(40) as threads, frozen(postgres_url):
        for answer in [threads.submit(ask, member) for ask in (READS + WRITES) * 7]:
            assert_away(answer.result())
        assert_unready(member, "d")
    assert_works(member)


def test_a_read_only_database_is_503_for_writes_alone(member: httpx.Client, postgres_url: str) -> None:
    job = submit(member)
    with read_only(postgres_url):
        for ask in WRITES:
            assert_away(ask(member))
        assert_away(member.post(f"/v1/jobs/{job['id']}/cancel"))
        assert member.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"
        assert_unready(member, "takes no writes")
    assert_works(member)


def test_a_column_of_another_type_is_noticed_by_nobody(member: httpx.Client, database_url: str) -> None:
    """A migration under a running API: its prepared statements return other types than they did."""
    path = f"/v1/jobs/{submit(member)['id']}"
    ask: list[Ask] = [lambda client: client.get(path), lambda client: client.get(f"{path}/events"), *READS[2:]]
    columns = [("jobs", "name"), ("users", "name"), ("datasets", "name"), ("job_events", "message")]
    with ThreadPoolExecutor(4) as threads:
        for answer in [threads.submit(each, member) for each in ask * 30]:  # so that every statement is prepared
            assert answer.result().status_code == 200
        with psycopg.connect(database_url, autocommit=True) as connection:
            for table, column in columns:
                connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar(500)".encode())
        for answer in [threads.submit(each, member) for each in ask * 5]:
            assert answer.result().status_code == 200, answer.result().text
        with psycopg.connect(database_url, autocommit=True) as connection:
            for table, column in columns:
                connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE text".encode())
    submit(member)


def test_a_job_that_is_stored_is_answered_though_its_place_cannot_be_read(member: httpx.Client, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("LOCK TABLE usage IN ACCESS EXCLUSIVE MODE")  # the order of the queue is by usage
        answer = member.post("/v1/jobs", json=spec())
    assert answer.status_code == 201
    assert answer.json()["queue"] is None
    assert member.get(answer.headers["Location"]).json()["queue"] is not None


def test_a_list_that_waits_holds_up_no_other(member: httpx.Client, database_url: str) -> None:
    submit(member)
    with ThreadPoolExecutor(1) as threads, psycopg.connect(database_url) as connection:
        connection.execute("LOCK TABLE job_labels IN ACCESS EXCLUSIVE MODE")
        waiting = threads.submit(member.get, "/v1/jobs", params={"label": "team:vision"})
        while not connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            pass
        assert member.get("/v1/jobs").status_code == 200
        assert not waiting.done()
        connection.rollback()
        assert waiting.result().status_code == 200


def test_ended_sessions_are_noticed_by_nobody(member: httpx.Client, database_url: str) -> None:
    for ask in READS[2:]:
        assert terminate(database_url) > 0
        assert ask(member).status_code == 200
    assert terminate(database_url) > 0
    submit(member)
