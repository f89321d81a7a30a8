"""Keys, users and what each role may do."""

from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import Team, spec, submit

VIEWER, MEMBER, ADMIN = 0, 1, 2
ROUTES: list[tuple[str, str, int, dict[str, Any]]] = [
    ("GET", "/v1/me", VIEWER, {}),
    ("PUT", "/v1/me/hub-token", MEMBER, {"json": {"token": "hf_x"}}),
    ("DELETE", "/v1/me/hub-token", MEMBER, {}),
    ("GET", "/v1/jobs", VIEWER, {}),
    ("GET", "/v1/jobs/{job}", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/events", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/metrics", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/logs", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/artifacts", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/artifacts/x", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/report", VIEWER, {}),
    ("GET", "/v1/jobs/{job}/explain", VIEWER, {}),
    ("GET", "/v1/datasets", VIEWER, {}),
    ("GET", "/v1/datasets/ds_x", VIEWER, {}),
    ("GET", "/v1/models", VIEWER, {}),
    ("GET", "/v1/models/model_x", VIEWER, {}),
    ("GET", "/v1/models/model_x/files/y", VIEWER, {}),
    ("GET", "/v1/methods", VIEWER, {}),
    ("GET", "/v1/architectures", VIEWER, {}),
    ("GET", "/v1/augmentations", VIEWER, {}),
    ("GET", "/v1/builtin-datasets", VIEWER, {}),
    ("GET", "/v1/queue", VIEWER, {}),
    ("GET", "/v1/workers", VIEWER, {}),
    ("GET", "/v1/usage", VIEWER, {}),
    ("POST", "/v1/workers/worker_x/drain", ADMIN, {}),
    ("POST", "/v1/workers/worker_x/undrain", ADMIN, {}),
    ("PATCH", "/v1/users/user_x", ADMIN, {"json": {}}),
    ("POST", "/v1/jobs", MEMBER, {"json": spec()}),
    ("POST", "/v1/jobs?dry_run=true", MEMBER, {"json": spec()}),
    ("POST", "/v1/jobs/preview", MEMBER, {"json": {}}),
    ("GET", "/v1/previews/preview_x", VIEWER, {}),
    ("PATCH", "/v1/jobs/{job}", MEMBER, {"json": {}}),
    ("POST", "/v1/jobs/{job}/pause", MEMBER, {}),
    ("POST", "/v1/jobs/{job}/resume", MEMBER, {}),
    ("POST", "/v1/jobs/{job}/cancel", MEMBER, {}),
    ("DELETE", "/v1/jobs/{job}", MEMBER, {}),
    ("POST", "/v1/datasets", MEMBER, {}),
    ("DELETE", "/v1/datasets/ds_x", MEMBER, {}),
    ("POST", "/v1/models", MEMBER, {}),
    ("PATCH", "/v1/models/model_x", MEMBER, {"json": {}}),
    ("DELETE", "/v1/models/model_x", MEMBER, {}),
    ("POST", "/v1/model-uploads", MEMBER, {"json": {}}),
    ("GET", "/v1/model-uploads/upload_x", MEMBER, {}),
    ("DELETE", "/v1/model-uploads/upload_x", MEMBER, {}),
    ("GET", "/v1/model-uploads/upload_x/files/y", MEMBER, {}),
    ("PUT", "/v1/model-uploads/upload_x/files/y", MEMBER, {}),
    ("POST", "/v1/model-uploads/upload_x/finish", MEMBER, {}),
    ("GET", "/v1/users", ADMIN, {}),
    ("POST", "/v1/users", ADMIN, {"json": {"name": "zoe"}}),
    ("GET", "/v1/keys", ADMIN, {}),
    ("POST", "/v1/keys", ADMIN, {"json": {"user": "zoe"}}),
    ("DELETE", "/v1/keys/key_x", ADMIN, {}),
]
# One person's job may be stopped, changed and deleted by that person or an admin alone.
OWNERS = {("PATCH", "/v1/jobs/{job}"), ("DELETE", "/v1/jobs/{job}")} | {
    ("POST", f"/v1/jobs/{{job}}/{verb}") for verb in ("pause", "resume", "cancel")
}


def test_the_matrix_covers_every_route(admin: httpx.Client) -> None:
    paths = admin.get("/openapi.json").json()["paths"]
    served = {(method.upper(), path) for path, operations in paths.items() for method in operations if path.startswith("/v1/")}
    asked = {(method, path.partition("?")[0]) for method, path, _, _ in ROUTES}

    def shape(path: str) -> tuple[str, ...]:
        parts = path.split("/")
        if len(parts) > 3 and parts[2] in {"jobs", "previews", "datasets", "models", "model-uploads", "keys", "users", "workers"}:
            parts[3] = "*"
        if len(parts) > 5:
            parts[5:] = ["*"]
        return tuple(parts)

    assert {(method, shape(path)) for method, path in served} == {(method, shape(path)) for method, path in asked}


@pytest.mark.parametrize(("method", "path", "least", "options"), ROUTES, ids=[f"{route[0]} {route[1]}" for route in ROUTES])
def test_each_role_may_do_its_part_and_no_more(team: Team, method: str, path: str, least: int, options: dict[str, Any]) -> None:
    owner = team.join("owner")
    job = submit(owner)["id"]
    url = path.format(job=job)
    nobody = team.client()
    answer = nobody.request(method, url, **options)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    for rank, role in enumerate(("viewer", "member", "admin")):
        answer = team.join(role, role).request(method, url, **options)  # type: ignore[arg-type]
        may = rank >= least and not (role == "member" and (method, path) in OWNERS)
        assert (answer.status_code == 403) is not may, f"{role}: {answer.status_code} {answer.text}"
        assert answer.status_code < 500
        assert answer.status_code != 401
    assert owner.get(f"/v1/jobs/{job}").status_code in {200, 404}


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eDp5", "Bearer sh_wrong", "bearer sh_w\u00f6rng", "sh_x"])
def test_a_key_that_is_not_valid_is_401(team: Team, header: str) -> None:
    client = team.client()
    answer = client.get("/v1/jobs", headers={b"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert "www-authenticate" in answer.headers


def test_a_key_is_shown_once_and_dies_when_it_is_revoked(admin: httpx.Client, team: Team) -> None:
    made = admin.post("/v1/keys", json={"user": "kim", "role": "viewer", "name": "laptop"})
    assert made.status_code == 201
    key = made.json()
    assert (key["user"], key["role"], key["name"], key["revoked_at"]) == ("kim", "viewer", "laptop", None)
    listed = next(item for item in admin.get("/v1/keys").json()["data"] if item["id"] == key["id"])
    assert "key" not in listed
    kim = team.client(key["key"])
    assert kim.get("/v1/me").json()["name"] == "kim"
    assert [admin.delete(f"/v1/keys/{key['id']}").status_code for _ in range(2)] == [204, 204]
    assert kim.get("/v1/me").status_code == 401
    assert admin.delete("/v1/keys/key_none").status_code == 404


def test_a_key_needs_a_user_or_a_name(admin: httpx.Client) -> None:
    assert admin.post("/v1/keys", json={"name": "robot"}).json()["user"] == "robot"
    assert admin.post("/v1/keys", json={"user": "robot"}).json()["role"] == "member"
    for body in ({}, {"user": ""}, {"user": "a\nb"}, {"user": "x", "role": "root"}, {"user": "x", "more": 1}, {"user": "a\0"}):
        assert admin.post("/v1/keys", json=body).status_code == 422, body


def test_the_last_admins_key_stays(admin: httpx.Client) -> None:
    me = admin.get("/v1/me").json()
    refused = admin.delete(f"/v1/keys/{me['key_id']}")
    assert refused.status_code == 409
    assert refused.headers["x-should-retry"] == "false"
    admin.post("/v1/keys", json={"user": "second", "role": "admin"})
    assert admin.delete(f"/v1/keys/{me['key_id']}").status_code == 204


def test_users_have_names_of_their_own(admin: httpx.Client) -> None:
    assert admin.post("/v1/users", json={"name": "zoe"}).status_code == 201
    assert admin.post("/v1/users", json={"name": "zoe"}).status_code == 409
    assert [user["name"] for user in admin.get("/v1/users").json()["data"]] == ["root", "zoe"]


@pytest.mark.parametrize(
    "body",
    ["hf_canary", ["hf_canary"], {"hf_canary": 1}, {"token": ["hf_canary"]}, {"token": {"a": "hf_canary"}},
     {"token": "hf_canary" * 100}, {"token": "hf_canary x"}, {"token": "hf_canary", "hf_canary": 1}],
)  # fmt: skip
def test_no_refusal_repeats_what_may_be_a_token(body: Any, member: httpx.Client) -> None:
    refused = member.put("/v1/me/hub-token", json=body)
    assert refused.status_code == 422
    assert "hf_canary" not in refused.text
