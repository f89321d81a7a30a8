"""Sign-in of people, over HTTP without a browser; what a browser does is in tests/browser."""

import httpx
import pytest

from tests.integration.api.conftest import Api, submit


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


def test_a_job_whose_method_has_several_terms_is_shown_on_every_page(api: Api, member: httpx.Client) -> None:
    ids = [
        submit(member, method={"terms": [{"name": "soft-targets"}, {"name": "dist", "weight": weight}]})["id"]
        for weight in (1, 2)
    ]
    for address in ("/", "/jobs", f"/jobs/{ids[0]}", f"/compare?job={ids[0]}&job={ids[1]}"):
        answer = httpx.get(f"{api.url}{address}", headers={"Authorization": member.headers["authorization"]}, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert "/sign-in" not in answer.text
