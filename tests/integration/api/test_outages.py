"""Redis or the database away: submits go on, or every answer says so; nothing hangs, nothing is a 500."""

from collections.abc import Iterator
from contextlib import closing

import httpx
import psycopg
import pytest

from service import workers
from service.broker import Broker, queue_name
from service.database import Database
from service.embedded.servers import Valkey
from tests.integration.api.conftest import Api, spec, submit


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


def test_every_route_is_503_without_the_database_and_works_again_after(
    member: httpx.Client, without_database: None, api: Api
) -> None:
    for answer in (
        member.get("/v1/jobs"),
        member.post("/v1/jobs", json=spec()),
        member.get("/v1/jobs/job_x/events", headers={"Accept": "text/event-stream"}),
        member.get("/v1/me"),
    ):
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "unavailable"
        assert int(answer.headers["retry-after"]) > 0
    ready = member.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert member.get("/healthz").status_code == 200


def test_it_works_again_when_the_database_is_back(member: httpx.Client) -> None:
    assert submit(member)["status"] == "queued"
