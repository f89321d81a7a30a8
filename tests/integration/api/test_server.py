"""The API as a process: starts, serves, ends quickly though somebody streams; the rate limit."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from starlette.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from tests.conftest import reserved_port
from tests.integration.api.conftest import Team, submit


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_sigterm_ends_open_streams_and_the_process(team: Team, settings: Settings, member: httpx.Client, port: int) -> None:
    job = submit(member)
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "STILLHOUSE_STORE": settings.store,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", str(port)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "running on" in line:
                break
        url = f"http://127.0.0.1:{port}/v1/jobs/{job['id']}/events"
        with member.stream("GET", url, headers={"Accept": "text/event-stream"}) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith(":")
            process.send_signal(signal.SIGTERM)
            assert "event: job.queued" in list(lines)
        assert process.wait(timeout=60) in {0, -signal.SIGTERM}
        assert "Cancel" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_the_process_never_imports_torch() -> None:
    code = "import sys, service.api.server; print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_setting_is_told(settings: Settings) -> None:
    with pytest.raises(ValueError, match="set REDIS_URL, STILLHOUSE_STORE"):
        create_app(settings.model_copy(update={"redis_url": "", "store": ""}))


@pytest.fixture
def slow(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings.model_copy(update={"requests_per_second": 2.0}))) as client:
        yield client


def test_one_key_has_one_rate_however_its_header_is_spelled(slow: TestClient) -> None:
    spellings = [
        f"{scheme} {blanks}sh_one{blanks}" for scheme in ("Bearer", "bearer", "BEARER") for blanks in ("", " ", "  ", "\t")
    ]
    assert [slow.get("/v1/me", headers={"Authorization": text}).status_code for text in spellings][-1] == 429


def test_what_holds_no_key_counts_for_the_address_that_sends_it(slow: TestClient) -> None:
    headers = [{}, *({"Authorization": f"Basic {number}"} for number in range(10)), {"Authorization": "Bearer "}]
    assert [slow.get("/v1/me", headers=each).status_code for each in headers][-1] == 429


def test_too_many_requests_of_one_key_are_429_and_others_are_served(slow: TestClient) -> None:
    mine, other = {"Authorization": "Bearer sh_one"}, {"Authorization": "Bearer sh_two"}
    answers = [slow.get("/v1/me", headers=mine) for _ in range(12)]
    assert [answer.status_code for answer in answers[:4]] == [401] * 4
    refused = answers[-1]
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_requests"
    assert int(refused.headers["retry-after"]) >= 1
    assert slow.get("/v1/me", headers=other).status_code == 401
    assert slow.get("/healthz", headers=mine).status_code == 200
