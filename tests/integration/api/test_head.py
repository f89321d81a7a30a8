"""HEAD: what a GET would answer, without its body."""

import re
from typing import Any

import httpx
import pytest

from service.api.app import create_app
from service.settings import Settings
from tests.integration.api.conftest import submit

VARIES = {"date", "x-request-id"}


@pytest.fixture(scope="module")
def addresses(settings: Settings) -> list[str]:
    """Every address of the document that a GET reads, with ``JOB`` in the place of a job's id."""
    paths: dict[str, Any] = create_app(settings).openapi()["paths"]
    return [
        re.sub(r"\{\w+\}", "none", path.replace("{job_id}", "JOB")) for path, operations in paths.items() if "get" in operations
    ]


def test_a_head_of_whatever_a_get_reads_is_answered_like_it(member: httpx.Client, addresses: list[str]) -> None:
    job = submit(member)["id"]
    for address in (*addresses, "/docs", "/openapi.json", "/nowhere", "/v1/jobs?limit=0"):
        path = address.replace("JOB", job)
        whole, head = member.get(path), member.head(path)
        assert (head.status_code, head.content) == (whole.status_code, b""), path
        differing = {
            name for name in head.headers.keys() | whole.headers.keys() if head.headers.get(name) != whole.headers.get(name)
        }
        assert differing <= VARIES, path


@pytest.mark.parametrize("name", ["events", "logs"])
def test_a_head_of_a_stream_ends(member: httpx.Client, name: str) -> None:
    head = member.head(f"/v1/jobs/{submit(member)['id']}/{name}", headers={"Accept": "text/event-stream"})
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert member.get("/healthz").status_code == 200, "the same connection answers the next request"


def test_a_head_of_what_only_takes_a_post_is_refused_with_what_it_takes(member: httpx.Client) -> None:
    head = member.head(f"/v1/jobs/{submit(member)['id']}/cancel")
    assert (head.status_code, head.headers["allow"]) == (405, "POST")
