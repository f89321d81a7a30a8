"""What holds for every request: ids, limits, and a clean answer to garbage."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from service.api import bodies
from service.lifecycle import Status
from service.settings import Settings
from tests.integration.api.conftest import spec, submit


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_request_bytes": 50_000})


def test_each_answer_names_its_request(member: httpx.Client) -> None:
    assert member.get("/v1/jobs", headers={"X-Request-Id": "mine-1.2_3"}).headers["x-request-id"] == "mine-1.2_3"
    for odd in ("a b", "x" * 129, "<script>"):
        given = member.get("/nowhere", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert given.startswith("req_")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/jobs/job_none", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_input"),
        ("GET", "/v1/jobs?limit=99999999999999999999", 422, "invalid_input"),
        ("GET", "/v1/jobs?after=x", 422, "invalid_input"),
        ("GET", "/v1/jobs?status=done", 400, "invalid_request"),
        ("GET", "/v1/jobs?label=x", 400, "invalid_request"),
        ("GET", "/v1/jobs?owner=%00", 400, "invalid_request"),
        ("GET", "/v1/jobs/%00", 400, "invalid_request"),
        ("GET", "/v1/jobs/job_none/events?after=99999999999999999999", 422, "invalid_input"),
        ("GET", "/v1/jobs/%ff%fe", 404, "not_found"),
        ("GET", "/v1/queue?pool=%ff", 400, "invalid_request"),
        ("GET", "/v1/jobs?owner=%ed%a0%80", 200, None),
    ],
)
def test_an_odd_address_gets_a_problem(member: httpx.Client, method: str, path: str, status: int, code: str | None) -> None:
    answer = member.request(method, path)
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["code"], problem["status"], problem["error"]["code"]) == (code, status, code)


def test_a_body_above_the_limit_is_413_declared_or_not(member: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    declared = member.post("/v1/jobs", content=b" " * 60_000, headers={"content-type": "application/json"})
    streamed = member.post("/v1/jobs", content=chunks(), headers={"content-type": "application/json"})
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert declared.json()["code"] == streamed.json()["code"] == "body_too_large"


GARBAGE = {
    "nothing": b"",
    "half": b'{"task":',
    "NaN": b'{"task": NaN}',
    "infinity": b'{"task": 1e999}',
    "invalid UTF-8": b'{"task": "\xff"}',
    "lone surrogate": b'{"task": "\\ud800"}',
    "NUL": b'{"task": "\\u0000"}',
    "NUL in a key": b'{"\\u0000": 1}',
    "huge integer": b'{"training": {"epochs": ' + b"9" * 5000 + b"}}",
    "deep": b"[" * 20_000,
    "deep and closed": b"[" * 150 + b"]" * 150,
    "two documents": b"{} {}",
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"task": "x"}'.encode("utf-16"),
    "binary": bytes(range(256)),
    "number": b"1",
    "string": b'"x"',
    "wide": b"[" + b"0," * 20_000 + b"0]",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_gets_a_clean_refusal_everywhere(admin: httpx.Client, content: bytes) -> None:
    job = submit(admin)["id"]
    headers = {"content-type": "application/json"}
    for method, path in (
        ("POST", "/v1/jobs"),
        ("PATCH", f"/v1/jobs/{job}"),
        ("POST", "/v1/users"),
        ("POST", "/v1/keys"),
    ):
        answer = admin.request(method, path, content=content, headers=headers)
        assert answer.status_code in {400, 422}, f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
    if content:
        assert admin.post(f"/v1/jobs/{job}/cancel", content=content, headers=headers).status_code in {400, 422}
    assert len(admin.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: *a",
        "a: 2026-01-01",
        "{" * 5000,
        "a: .nan",
        "a: .inf",
        "? [1, 2]\n: x",
        "!!python/object/apply:os.system [ls]",
        "a: !!binary aGk=",
        "\x00",
        "a: b: c",
        "1: x",
    ],
)
def test_yaml_that_is_no_json_gets_a_clean_refusal(member: httpx.Client, text: str) -> None:
    answer = member.post("/v1/jobs", content=text, headers={"content-type": "application/yaml"})
    assert answer.status_code in {400, 422}, answer.text
    assert member.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_body_of_another_type_is_415_and_the_types_that_are_taken_are_named(admin: httpx.Client, content_type: str) -> None:
    for path, accepted in (("/v1/jobs", "application/json or application/yaml"), ("/v1/keys", "application/json")):
        answer = admin.post(path, content=json.dumps(spec()), headers={"content-type": content_type})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert f"as {accepted}, not as" in answer.json()["detail"]


def test_a_body_that_does_not_say_its_type_is_read_as_json(admin: httpx.Client) -> None:
    assert admin.post("/v1/jobs", content=json.dumps(spec())).status_code == 201
    assert admin.post("/v1/keys", content=b'{"user": "kim"}').status_code == 201


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json"])
def test_a_job_without_a_body_is_told_that_one_is_missing(member: httpx.Client, content_type: str) -> None:
    answer = member.post("/v1/jobs", headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "body")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", "/v1/jobs/job_none", "DELETE, GET, HEAD, PATCH"),
        ("DELETE", "/v1/jobs/job_none/artifacts/student/config.json", "GET, HEAD"),
        ("PATCH", "/v1/keys", "GET, HEAD, POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
    ],
)
def test_a_method_that_an_address_does_not_take_is_told_with_all_that_it_takes(
    member: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = member.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["detail"] == f"this address does not take {method}; it takes {allowed}"


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/datasets/?limit=1", "/docs/", "/healthz//"])
def test_a_slash_too_many_is_told_and_leads_nowhere_else(member: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = member.request(method, path, headers={"Host": "stillhouse.example", "X-Forwarded-Proto": "https"})
        assert (answer.status_code, "location" in answer.headers) == (404, False)
        assert answer.json()["detail"] == "there is nothing at this address; leave out the slash at its end"


@pytest.mark.parametrize(
    ("path", "parameter", "most"),
    [("/v1/jobs", "label", 8), ("/v1/jobs", "status", len(Status)), ("/v1/jobs/job_none/metrics", "names", 200)],
)
def test_a_parameter_is_repeated_so_often_and_no_more(member: httpx.Client, path: str, parameter: str, most: int) -> None:
    value = "queued" if parameter == "status" else "a:b"
    assert member.get(path, params=[(parameter, value)] * most).status_code == (404 if "job_none" in path else 200)
    refused = member.get(path, params=[(parameter, value)] * (most + 1))
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"query:{parameter}")


def test_metrics_with_commas_between_them_are_counted_too(member: httpx.Client) -> None:
    refused = member.get("/v1/jobs/job_none/metrics", params={"names": ",".join(["loss"] * 201)})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "names")


def test_an_address_of_any_length_is_refused_at_once(member: httpx.Client) -> None:
    for path in (f"/v1/jobs?owner={'x' * 16_384}", f"/{'x' * 16_384}"):
        assert member.get(path).status_code == 414


def test_a_problem_has_every_field_of_its_error_and_faults_only_where_there_are_some(member: httpx.Client) -> None:
    problem = member.get("/v1/jobs/job_none").json()
    assert problem["error"] == {
        "message": problem["detail"],
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }
    assert "errors" not in problem
    assert member.get("/v1/jobs?status=done").json()["error"]["param"] == "status"


def test_what_is_wrong_with_parameters_is_told_at_once(member: httpx.Client) -> None:
    problem = member.get("/v1/jobs?limit=0&after=x").json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["query:limit", "query:after"]


def test_a_nul_in_what_would_be_stored_is_told_with_its_place(member: httpx.Client) -> None:
    answer = member.post(
        "/v1/jobs", content=json.dumps(spec(labels={"a/b": "x\0"})), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/labels/a~1b"]


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Idempotency-Key"])
def test_a_header_of_one_value_is_not_given_twice(member: httpx.Client, name: str) -> None:
    given = member.headers.get(name, "application/json")
    headers = [*member.headers.multi_items(), ("Content-Type", "application/json"), (name, given)]
    headers += [] if name in {"Authorization", "Content-Type"} else [(name, "another")]
    answer = member.post("/v1/jobs?dry_run=true", headers=headers, content=json.dumps(spec()))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name.lower())


def test_a_poll_is_for_one_key(member: httpx.Client) -> None:
    headers = [*member.headers.multi_items(), ("Authorization", "Bearer sh_another")]
    answer = member.get(f"/v1/jobs/{submit(member)['id']}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "authorization")


BODIES = {"/v1/jobs": "application/json", "/v1/users": "application/json", "/v1/datasets": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize("path", BODIES)
def test_a_body_of_which_nothing_comes_is_408(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(bodies, "_STALLED_SECONDS", 0.1)
    with unfinished(admin, path) as connection:
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_within_its_body_is_no_fault_of_the_service(
    admin: httpx.Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with unfinished(admin, path):
        pass
    for _ in range(3):
        assert admin.get("/v1/me").status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@contextmanager
def unfinished(client: httpx.Client, path: str) -> Iterator[socket.socket]:
    """A request that has said more of its body than it sends."""
    head = {"Host": "x", "Content-Type": BODIES[path], "Content-Length": "100", "Authorization": client.headers["authorization"]}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", "{"]
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        yield connection
