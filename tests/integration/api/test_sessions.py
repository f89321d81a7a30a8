"""Sign-in of people, over HTTP without a browser; what a browser does is in tests/browser."""

import httpx
import pytest

from tests.integration.api.conftest import Api


@pytest.mark.parametrize(
    ("meant", "sent_to"),
    [
        ("/jobs?status=failed", "/jobs?status=failed"),
        ("https://elsewhere.example/", "/"),
        ("//elsewhere.example/", "/"),
        ("/\\elsewhere.example/", "/"),
        ("/\t/elsewhere.example/", "/"),
        ("/\n\\elsewhere.example/", "/"),
    ],
)
def test_who_signs_in_stays_on_this_service(api: Api, member: httpx.Client, meant: str, sent_to: str) -> None:
    key = member.headers["authorization"].removeprefix("Bearer ")
    answer = httpx.post(f"{api.url}/session", data={"key": key, "next": meant}, headers={"Origin": api.url}, trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (303, sent_to)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert key not in cookie


def test_a_sign_in_that_another_site_sends_is_refused(api: Api, member: httpx.Client) -> None:
    key = member.headers["authorization"].removeprefix("Bearer ")
    for headers in ({"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site", "Origin": api.url}, {}):
        answer = httpx.post(f"{api.url}/session", data={"key": key}, headers=headers, trust_env=False)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
