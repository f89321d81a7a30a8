"""A user's weight and limits over HTTP: changed, lifted, refused, and what comes of them."""

from typing import Any

import httpx
import pytest

from service.database import Database
from tests.integration.api.conftest import Team, add_host, spec, submit


def test_weight_and_limits_are_changed_one_by_one_and_null_lifts_a_limit(admin: httpx.Client, member: httpx.Client) -> None:
    def change(**fields: Any) -> tuple[float, int | None, int | None]:
        answer = admin.patch("/v1/users/ada", json=fields)
        assert answer.status_code == 200, answer.text
        user = answer.json()
        return user["share_weight"], user["max_running_jobs"], user["max_queued_jobs"]

    assert change(share_weight=2) == (2.0, None, None)
    assert change(max_running_jobs=3) == (2.0, 3, None)
    assert change(max_queued_jobs=0) == (2.0, 3, 0)
    assert change(max_running_jobs=None) == (2.0, None, 0)
    assert change() == (2.0, None, 0)
    (ada,) = (user for user in admin.get("/v1/users").json()["data"] if user["name"] == "ada")
    assert admin.patch(f"/v1/users/{ada['id']}", json={"max_queued_jobs": None}).json() == {**ada, "max_queued_jobs": None}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"max_running_jobs": -1}, "/max_running_jobs"),
        ({"max_queued_jobs": -1}, "/max_queued_jobs"),
        ({"max_running_jobs": "3"}, "/max_running_jobs"),
        ({"max_queued_jobs": True}, "/max_queued_jobs"),
        ({"max_running_jobs": 2.5}, "/max_running_jobs"),
        ({"share_weight": 0}, "/share_weight"),
        ({"share_weight": 1e-320}, "/share_weight"),
        ({"share_weight": -2}, "/share_weight"),
        ({"share_weight": "2"}, "/share_weight"),
        ({"share_weight": True}, "/share_weight"),
        ({"share_weight": None}, "/share_weight"),
        ({"role": "admin"}, "/role"),
    ],
)
def test_a_limit_that_is_none_is_refused_with_its_place_and_nothing_changes(
    admin: httpx.Client, member: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    before = admin.get("/v1/users").json()
    answer = admin.patch("/v1/users/ada", json={"max_running_jobs": 5} | change)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert admin.get("/v1/users").json() == before


def test_limits_are_the_admins_to_set_and_of_users_that_exist(admin: httpx.Client, member: httpx.Client) -> None:
    assert member.patch("/v1/users/ada", json={"share_weight": 100}).status_code == 403
    assert member.get("/v1/users").status_code == 403
    answer = admin.patch("/v1/users/nobody", json={"share_weight": 2})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no user 'nobody'; GET /v1/users lists them")


def test_a_full_queue_is_told_at_once_with_what_to_do_and_is_nobody_elses(
    admin: httpx.Client, member: httpx.Client, team: Team, database: Database
) -> None:
    admin.patch("/v1/users/ada", json={"max_queued_jobs": 2})
    first, _ = submit(member), submit(member)
    refused = member.post("/v1/jobs", json=spec())
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_limit_reached")
    assert refused.headers["x-should-retry"] == "false"
    assert "cancel some, or ask an admin for a higher max_queued_jobs" in refused.json()["detail"]
    submit(team.join("ben"))
    assert add_host(database).claims() == [first["id"]]
    submit(member)  # what runs waits no more
    assert member.post("/v1/jobs", json=spec()).status_code == 429


def test_a_user_who_may_run_none_waits_and_is_told_so(admin: httpx.Client, member: httpx.Client, database: Database) -> None:
    admin.patch("/v1/users/ada", json={"max_running_jobs": 0})
    job, host = submit(member), add_host(database)
    assert host.claims() == []
    told = member.get(f"/v1/jobs/{job['id']}/explain").json()
    assert (told["blocker"]["cause"], told["fair_share"]["max_running_jobs"]) == ("user_limit", 0)
    admin.patch("/v1/users/ada", json={"max_running_jobs": None})
    assert host.claims() == [job["id"]]
