"""Two processes of the API: what is written on one is read on the other at once, however many read there at the same time."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from service.embedded.processes import Child
from service.embedded.servers import Valkey
from service.settings import Settings
from tests.conftest import reserved_port
from tests.integration.api.conftest import Team, spec

_ROUNDS = 4
_READERS = 2


@pytest.fixture(scope="module")
def other_url(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second process, on the same database."""
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "STILLHOUSE_STORE": settings.store,
        "STILLHOUSE_PREFLIGHT": "false",
        "STILLHOUSE_POOLS": json.dumps(settings.pools),
        "STILLHOUSE_REQUESTS_PER_SECOND": "100000",
    }
    log: Path = tmp_path_factory.mktemp("other") / "log.txt"
    with reserved_port() as port:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
        child = Child("the second API", command, env=os.environ | environment, log=log)
        child.start()
        try:
            url = f"http://127.0.0.1:{port}"
            child.wait_until(lambda: _answers(url), timeout_seconds=100)
            yield url
        finally:
            child.stop(grace_seconds=20)


@pytest.fixture(params=["with Redis", "without Redis"])
def redis(request: pytest.FixtureRequest, valkey_server: Valkey) -> Iterator[None]:
    if request.param == "with Redis":
        yield
        return
    valkey_server.stop()
    yield
    valkey_server.start()


@pytest.fixture
def both(team: Team, other_url: str, redis: None) -> tuple[httpx.Client, httpx.Client]:
    """The same person's clients of the two processes."""
    here = team.join("ada", "admin")
    there = httpx.Client(base_url=other_url, headers=here.headers, timeout=30, trust_env=False)
    return here, team.stack.enter_context(there)


def test_a_read_on_the_other_process_sees_every_write(both: tuple[httpx.Client, httpx.Client]) -> None:
    for number in range(_ROUNDS):
        writer, reader = both if number % 2 == 0 else both[::-1]
        job = writer.post("/v1/jobs", json=spec()).json()
        path = f"/v1/jobs/{job['id']}"
        with read_all_the_while(reader, path, "/v1/jobs?limit=1"):
            assert reader.get(path).json()["version"] == job["version"]
            assert reader.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["id"] == job["id"]
            for change in ({"name": "renamed"}, {"labels": {"round": str(number)}}):
                edited = writer.patch(path, json=change)
                etag = edited.headers["etag"]
                assert reader.get(path, headers={"If-None-Match": etag}).status_code == 304
                assert reader.get(path, headers={"If-None-Match": f'"{job["version"]}"'}).headers["etag"] == etag
                assert reader.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["version"] == edited.json()["version"]
            assert writer.post(f"{path}/cancel").status_code == 200
            assert reader.get(path, headers={"If-None-Match": etag}).json()["status"] == "cancelled"
            assert writer.delete(path).status_code == 204
            assert reader.get(path).status_code == 404


def test_who_waits_on_the_other_process_sees_every_write(both: tuple[httpx.Client, httpx.Client]) -> None:
    for number in range(_ROUNDS):
        writer, reader = both if number % 2 == 0 else both[::-1]
        path = f"/v1/jobs/{writer.post('/v1/jobs', json=spec()).json()['id']}"
        with (
            ThreadPoolExecutor(1) as pool,
            reader.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream,
        ):
            events = (line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: "))
            assert next(events) == "job.queued"
            for write, event in (("pause", "job.paused"), ("resume", "job.queued"), ("cancel", "job.cancelled")):
                headers = {"If-None-Match": reader.get(path).headers["etag"], "Prefer": "wait=30"}
                poll = pool.submit(reader.get, path, headers=headers)
                written = writer.post(f"{path}/{write}").json()
                assert poll.result().json()["version"] == written["version"]
                assert next(events) == event
            assert list(events) == []


def test_a_revoked_key_is_refused_by_the_other_process_at_once(both: tuple[httpx.Client, httpx.Client]) -> None:
    writer, reader = both
    for _ in range(_ROUNDS):
        key = writer.post("/v1/keys", json={"user": "ben", "role": "viewer"}).json()
        with (
            httpx.Client(
                base_url=reader.base_url, headers={"Authorization": f"Bearer {key['key']}"}, timeout=30, trust_env=False
            ) as revoked,
            read_all_the_while(revoked, "/v1/jobs/job_x"),
        ):
            assert revoked.get("/v1/jobs/job_x").status_code == 404
            assert writer.delete(f"/v1/keys/{key['id']}").is_success
            assert {revoked.get(path).status_code for path in ("/v1/jobs/job_x", "/v1/jobs", "/v1/me")} == {401}


@contextmanager
def read_all_the_while(client: httpx.Client, *paths: str) -> Iterator[None]:
    """Reads by several threads, so that a statement is under way whenever another read arrives."""
    done = threading.Event()

    def read(path: str) -> Callable[[], None]:
        def again() -> None:
            with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30, trust_env=False) as own:
                while not done.is_set():
                    own.get(path)

        return again

    with ExitStack() as stack:
        for path in paths:
            for _ in range(_READERS):
                thread = threading.Thread(target=read(path))
                thread.start()
                stack.callback(thread.join)
        stack.callback(done.set)
        yield


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz", timeout=5, trust_env=False).is_success
    return False
