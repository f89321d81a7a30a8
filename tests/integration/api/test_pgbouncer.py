"""The service behind a real PgBouncer that shares three sessions, in transaction mode, or lends one to each, in session mode."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from functools import partial
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.database import Database, upgrade
from service.jobs import Fence
from service.lifecycle import Outcome
from service.part_errors import Meaning, meaning_of
from service.scheduling import Device, Offer, claim
from service.settings import Settings
from tests.integration.api.conftest import Team, add_host, spec, submit
from tests.integration.conftest import on_database
from tests.integration.database_faults import frozen
from tests.integration.jobs.conftest import metrics, progress, renew, succeed
from tests.integration.pgbouncer import POOL_SIZE, PgBouncer, pgbouncer

ROWS = b"text,label\na,0\nb,1\n" * 8


@pytest.fixture(scope="module", params=["transaction", "session"])
def pooler(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    with pgbouncer(postgres_url, request.param) as running:
        yield running


@pytest.fixture(scope="module")
def settings(settings: Settings, pooler: PgBouncer) -> Settings:
    """The address of the database is the pooler's; nothing else says that there is one. The server is far from UTC."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        name = settings.database_url.partition("?")[0].rpartition("/")[2]
        connection.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'".encode())
    address = pooler.url(settings.database_url)
    return settings.model_copy(update={"database_url": address, "database_seconds": 4.0})


@pytest.fixture
def through(pooler: PgBouncer, database_url: str, settings: Settings) -> Iterator[Database]:
    """As patient as a worker."""
    with closing(Database(pooler.url(database_url), answer_seconds=settings.patient_database_seconds)) as opened:
        yield opened


def test_every_kind_of_call_is_answered(team: Team, admin: httpx.Client) -> None:
    def visit(number: int) -> None:
        """One person's day."""
        ada = team.join(f"ada{number}")
        job = submit(ada, name=f"job {number}")
        path = f"/v1/jobs/{job['id']}"
        assert job["created_at"].endswith("Z")
        poll = ada.get(path)
        assert poll.json()["created_at"] == job["created_at"]
        assert ada.get(path, headers={"If-None-Match": poll.headers["etag"]}).status_code == 304
        assert ada.patch(path, json={"name": "renamed"}).json()["name"] == "renamed"
        assert job["id"] in [each["id"] for each in ada.get("/v1/jobs").json()["data"]]
        assert ada.get(f"{path}/explain").status_code == 200
        assert ada.get("/v1/queue").json()["num_waiting"] >= 1
        assert ada.post(f"{path}/pause").json()["status"] == "paused"
        assert ada.post(f"{path}/resume").json()["status"] == "queued"
        waiting = ada.get(path).headers["etag"]
        with ThreadPoolExecutor(1) as thread:
            changed = thread.submit(ada.get, path, headers={"If-None-Match": waiting, "Prefer": "wait=20"})
            assert ada.post(f"{path}/cancel").json()["status"] == "cancelled"
            assert changed.result().json()["status"] == "cancelled"
        stream = ada.get(f"{path}/events", headers={"Accept": "text/event-stream"}).text
        assert "event: job.cancelled" in stream
        form = {"name": f"rows {number}", "task": "text-classification"}
        data = ada.post("/v1/datasets", data=form, files={"file": ("rows.csv", ROWS + b"c,0\n" * number)})
        assert data.status_code == 201, data.text
        assert ada.get(f"/v1/datasets/{data.json()['id']}").json()["created_at"].endswith("Z")
        assert ada.delete(f"/v1/datasets/{data.json()['id']}").status_code == 204
        assert ada.delete(path).status_code == 204

    with ThreadPoolExecutor(4) as threads:
        for end in [threads.submit(visit, number) for number in range(4)]:
            end.result()
    for path in ("workers", "usage", "users", "keys", "models", "methods"):
        assert admin.get(f"/v1/{path}").status_code == 200
    assert admin.get("/readyz").json()["status"] == "ready"


def test_workers_claim_each_job_once_renew_it_and_settle_it(
    through: Database, team: Team, member: httpx.Client, database: Database
) -> None:
    """Claims wait for each other by an advisory lock, which belongs to a transaction."""
    hosts = [add_host(database, name=f"host-{number}") for number in range(4)]
    submitted = {submit(member)["id"] for _ in range(12)}
    done: list[str] = []

    def take(session: Session, worker_id: str) -> Fence | None:
        found = claim(session, Offer(worker_id, "default", (Device("cpu:0", None),)), lease_seconds=300)
        return None if found is None else found.fence

    def work(worker_id: str) -> None:
        def next_fence() -> Fence | None:
            return through.run(lambda session: take(session, worker_id))

        for fence in iter(next_fence, None):
            for write in (renew, progress, metrics, renew, succeed):
                assert through.run(partial(write, fence=fence)) is Outcome.APPLIED
            done.append(fence.job_id)

    with ThreadPoolExecutor(len(hosts)) as threads:
        for end in [threads.submit(work, host.id) for host in hosts]:
            end.result()
    assert sorted(done) == sorted(submitted)
    assert {member.get(f"/v1/jobs/{job_id}").json()["status"] for job_id in submitted} == {"succeeded"}


def test_migrations_go_through_it(pooler: PgBouncer, postgres_url: str) -> None:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    address = pooler.url(on_database(postgres_url, name))
    upgrade(address)
    with closing(Database(address)) as migrated:
        assert migrated.run(lambda session: session.scalar(text("SELECT count(*) FROM jobs"))) == 0
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_its_settings_hold_for_its_own_transactions_alone(pooler: PgBouncer, database_url: str) -> None:
    def own(session: Session) -> tuple[str, str]:
        values = session.execute(text("SELECT current_setting('timezone'), current_setting('statement_timeout')")).one()
        return values[0], values[1]

    with ThreadPoolExecutor(POOL_SIZE) as threads, closing(Database(pooler.url(database_url), answer_seconds=1.0)) as hasty:
        together = threading.Barrier(POOL_SIZE)

        def meet(session: Session) -> tuple[str, str]:
            together.wait()
            return own(session)

        assert {end.result() for end in [threads.submit(hasty.run, meet) for _ in range(POOL_SIZE)]} == {("UTC", "800ms")}
        with pytest.raises(DBAPIError, match="statement timeout"):
            hasty.run(lambda session: session.execute(text("SELECT pg_sleep(60)")))
    with psycopg.connect(pooler.url(database_url), autocommit=True) as other:
        assert other.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_its_settings_hold_for_what_its_event_loop_reads(pooler: PgBouncer, database_url: str) -> None:
    words = ["a'b", "%s", "\\", None]

    async def scenario() -> None:
        with closing(Database(pooler.url(database_url), answer_seconds=1.0)) as hasty:
            async with aclosing(hasty.read_connection()) as connection:
                statement = (
                    "SELECT current_setting('timezone') AS a, current_setting('statement_timeout') AS b, %(words)s::text[] AS c"
                )
                assert await connection.fetch(statement, {"words": words}) == [("UTC", "800ms", words)]
                with pytest.raises(psycopg.errors.QueryCanceled):
                    await connection.fetch("SELECT pg_sleep(60)", {})

    asyncio.run(scenario())
    with psycopg.connect(pooler.url(database_url), autocommit=True) as other:
        assert other.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_pooler_that_is_started_anew_is_away_meanwhile(member: httpx.Client, pooler: PgBouncer) -> None:
    submit(member)
    pooler.stop()
    assert member.post("/v1/jobs", json=spec()).status_code == 503
    assert member.get("/v1/me").status_code == 503
    assert member.get("/readyz").status_code == 503
    pooler.start()
    submit(member)
    assert member.get("/readyz").status_code == 200


def test_a_frozen_server_behind_a_living_pooler_is_away(member: httpx.Client, postgres_url: str) -> None:
    submit(member)
    with frozen(postgres_url):
        assert member.post("/v1/jobs", json=spec()).status_code == 503
        assert member.get("/readyz").status_code == 503
    while member.post("/v1/jobs", json=spec()).status_code == 503:
        pass
    assert member.get("/v1/me").status_code == 200


def test_a_pooler_that_shares_a_session_between_statements_is_refused_with_its_words(
    postgres_url: str, database_url: str
) -> None:
    with (
        pgbouncer(postgres_url, "statement") as pooler,
        closing(Database(pooler.url(database_url))) as refused,
        pytest.raises(DBAPIError, match="transaction blocks not allowed in statement pooling mode") as caught,
    ):
        refused.run(lambda session: session.scalar(text("SELECT 1")))
    assert meaning_of(caught.value) is Meaning.AWAY
