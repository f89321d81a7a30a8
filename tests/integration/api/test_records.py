"""What a job leaves: events, metrics, log, artifacts, report."""

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from service import jobs
from service.api.examples import REPORT
from service.database import Database
from service.jobs import Fence
from service.store import Store
from tests.integration.api.conftest import Api, run_one, submit

PAGE = "<h1>Report</h1><script>alert(1)</script>"
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def fence(member: httpx.Client, database: Database) -> Fence:
    submit(member)
    return run_one(database)


@pytest.fixture
def path(fence: Fence, api: Api, database: Database, tmp_path: Path) -> str:
    """A job that has ended with artifacts."""
    store = Store(api.settings.store)
    files = []
    for name, content in {
        "report.json": json.dumps(REPORT).encode(),
        "report.html": PAGE.encode(),
        "student/model.safetensors": WEIGHTS,
    }.items():
        source = tmp_path / "source"
        source.write_bytes(content)
        files.append(store.put(source, f"jobs/{fence.job_id}/1/{name}", name=name))
    with database.transaction() as session:
        jobs.record_checkpoint(session, fence, files[2], phase="student", step=1)
    with database.transaction() as session:
        jobs.request_cancel(session, fence.job_id, keep="last")
        jobs.settle_stopped(session, fence, reason="cancel", files=files)
    return f"/v1/jobs/{fence.job_id}"


def test_events_are_paged(member: httpx.Client, path: str) -> None:
    whole = member.get(f"{path}/events").json()
    first = member.get(f"{path}/events", params={"limit": 2}).json()
    rest = member.get(f"{path}/events", params={"after": 2}).json()
    assert [event["seq"] for event in whole["data"]] == list(range(1, len(whole["data"]) + 1))
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert first["data"] + rest["data"] == whole["data"]


def test_metrics_are_thinned_and_keep_their_ends(member: httpx.Client, fence: Fence, database: Database) -> None:
    points = [(step, float(step)) for step in range(100)]
    with database.transaction() as session:
        jobs.record_metrics(session, fence, {"student/train_loss": points, "teacher/lr": [(5, 0.5)]})
    path = f"/v1/jobs/{fence.job_id}/metrics"
    whole = {series["name"]: series["points"] for series in member.get(path).json()["data"]}
    assert whole == {"student/train_loss": [list(point) for point in points], "teacher/lr": [[5, 0.5]]}
    (thin,) = member.get(path, params={"names": "student/train_loss", "max_points": 7}).json()["data"]
    assert len(thin["points"]) == 7
    assert (thin["points"][0], thin["points"][-1]) == ([0, 0.0], [99, 99.0])
    assert member.get(path, params={"max_points": 1}).status_code == 422
    assert member.get(path, params={"names": "none"}).json()["data"] == []


def test_the_log_can_be_read_whole_by_range_and_from_its_end(member: httpx.Client, fence: Fence, database: Database) -> None:
    for addition in ("erste Zeile\n", "zwé", "ite\ndritte\n"):
        with database.transaction() as session:
            jobs.append_log(session, fence, addition)
    path = f"/v1/jobs/{fence.job_id}/logs"
    text = "erste Zeile\nzwéite\ndritte\n"
    whole = member.get(path)
    assert (whole.status_code, whole.text) == (200, text)
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert member.get(path, params={"tail": 2}).text == "zwéite\ndritte\n"
    assert member.get(path, params={"tail": 0}).text == ""
    assert member.get(path, params={"tail": 99}).text == text
    part = member.get(path, headers={"Range": "bytes=6-13"})
    assert (part.status_code, part.content) == (206, text.encode()[6:14])
    assert part.headers["content-range"] == f"bytes 6-13/{len(text.encode())}"
    assert member.get(path, headers={"Range": "bytes=-7"}).text == "dritte\n"
    beyond = member.get(path, headers={"Range": "bytes=500000-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(text.encode())}"


def test_a_job_without_a_log_has_an_empty_one(member: httpx.Client) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    assert member.get(f"{path}/logs").text == ""
    assert member.get(f"{path}/metrics").json()["data"] == []
    assert member.get(f"{path}/artifacts").json()["data"] == []
    assert member.get(f"{path}/report").status_code == 404


def test_artifacts_are_listed_with_their_digests(member: httpx.Client, path: str) -> None:
    listed = member.get(f"{path}/artifacts").json()["data"]
    assert [file["name"] for file in listed] == ["report.html", "report.json", "student/model.safetensors"]
    assert listed[2] == {
        "name": "student/model.safetensors",
        "size": len(WEIGHTS),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "media_type": "application/octet-stream",
    }


def test_an_artifact_is_sent_whole_in_part_or_not_at_all(member: httpx.Client, path: str) -> None:
    url = f"{path}/artifacts/student/model.safetensors"
    whole = member.get(url)
    etag = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert (whole.status_code, whole.content) == (200, WEIGHTS)
    assert whole.headers["etag"] == etag
    assert whole.headers["accept-ranges"] == "bytes"
    part = member.get(url, headers={"Range": "bytes=10000-"})
    assert (part.status_code, part.content) == (206, WEIGHTS[10000:])
    assert part.headers["content-range"] == f"bytes 10000-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
    assert member.get(url, headers={"Range": "bytes=10000-", "If-Range": '"old"'}).status_code == 200
    assert member.get(url, headers={"Range": "bytes=0-1,5-6"}).content == WEIGHTS
    assert member.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416
    assert member.get(url, headers={"If-None-Match": etag}).status_code == 304
    head = member.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(WEIGHTS)), b"")
    assert head.headers["etag"] == etag


def test_a_page_among_the_artifacts_is_never_run_as_ours(member: httpx.Client, path: str) -> None:
    headers = member.get(f"{path}/artifacts/report.html").headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]


def test_the_report_comes_as_json_and_as_a_page(member: httpx.Client, path: str) -> None:
    assert member.get(f"{path}/report").json() == REPORT
    page = member.get(f"{path}/report", headers={"Accept": "text/html,*/*"})
    assert page.text == PAGE
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in page.headers["content-security-policy"]


@pytest.mark.parametrize("accept", ["*/*", "application/json, text/html;q=0", "application/json, text/html;q=0.5"])
def test_the_report_comes_as_json_unless_a_page_is_wanted_more(member: httpx.Client, path: str, accept: str) -> None:
    assert member.get(f"{path}/report", headers={"Accept": accept}).json() == REPORT


def test_the_report_is_sent_whole_in_part_or_not_at_all(member: httpx.Client, path: str) -> None:
    url = f"{path}/report"
    etag = member.get(url).headers["etag"]
    part = member.get(url, headers={"Range": "bytes=0-3", "If-Range": etag})
    assert (part.status_code, part.content) == (206, json.dumps(REPORT).encode()[:4])
    assert member.get(url, headers={"Range": "bytes=500000-"}).status_code == 416
    assert member.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_an_answer_that_goes_by_accept_says_so(member: httpx.Client, path: str) -> None:
    etag = member.get(f"{path}/report").headers["etag"]
    for name, headers in (
        ("report", {}),
        ("report", {"Accept": "text/html"}),
        ("report", {"If-None-Match": etag}),
        ("logs", {}),
        ("logs", {"Accept": "text/event-stream"}),
        ("events", {}),
        ("events", {"Accept": "text/event-stream"}),
    ):
        assert member.get(f"{path}/{name}", headers=headers).headers["vary"] == "Accept", f"{name} {headers}"


def test_a_stream_that_is_not_wanted_is_not_sent(member: httpx.Client, path: str) -> None:
    answer = member.get(f"{path}/events", headers={"Accept": "application/json, text/event-stream;q=0"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "name", ["none", "../secrets", "..%2f..%2fetc%2fpasswd", "student", "%2e%2e/x", "student/model.safetensors/"]
)
def test_a_name_that_is_no_artifact_is_404(member: httpx.Client, path: str, name: str) -> None:
    assert member.get(f"{path}/artifacts/{name}").status_code == 404


def test_a_checkpoint_is_no_artifact(member: httpx.Client, fence: Fence, api: Api, database: Database, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.write_bytes(b"state")
    file = Store(api.settings.store).put(source, f"jobs/{fence.job_id}/1/checkpoint", name="checkpoint.safetensors")
    with database.transaction() as session:
        jobs.record_checkpoint(session, fence, file, phase="student", step=3)
    path = f"/v1/jobs/{fence.job_id}/artifacts"
    assert member.get(path).json()["data"] == []
    assert member.get(f"{path}/checkpoint.safetensors").status_code == 404


def test_a_deleted_jobs_files_are_gone_from_the_store(member: httpx.Client, path: str, api: Api, fence: Fence) -> None:
    assert any(fence.job_id in str(file) for file in api.files())
    assert member.delete(path).status_code == 204
    assert not any(fence.job_id in str(file) for file in api.files())
