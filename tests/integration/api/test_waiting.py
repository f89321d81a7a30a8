"""Long polls and live streams, against jobs that a worker writes to at the same time."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from service import jobs
from service.client import Client
from service.database import Database
from service.jobs import Fence
from tests.integration.api.conftest import run_one, submit

Message = dict[str, str]


def _messages(lines: Iterator[str]) -> Iterator[Message]:
    message: Message = {}
    for line in lines:
        if not line and message:
            yield message
            message = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            message[name] = f"{message[name]}\n{value}" if name == "data" and "data" in message else value


def _stream(client: httpx.Client, path: str, *, last: str | None = None, take: int | None = None) -> list[Message]:
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})
    found: list[Message] = []
    with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for message in _messages(response.iter_lines()):
            found.append(message)
            if len(found) == take:
                break
    return found


def _cancel(database: Database, fence: Fence) -> None:
    with database.transaction() as session:
        jobs.request_cancel(session, fence.job_id, keep="last")
        jobs.settle_stopped(session, fence, reason="cancel")


def test_an_unchanged_job_is_304_and_a_changed_one_is_sent(member: httpx.Client) -> None:
    job = submit(member)
    path = f"/v1/jobs/{job['id']}"
    etag = member.get(path).headers["etag"]
    assert etag == f'"{job["version"]}"'
    same = member.get(path, headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert member.get(path, headers={"If-None-Match": f'W/{etag}, "x"'}).status_code == 304
    assert member.get(path, headers={"If-None-Match": '"0"'}).status_code == 200
    assert "preference-applied" not in same.headers


def test_a_long_poll_answers_as_soon_as_the_job_changes(member: httpx.Client, admin: httpx.Client) -> None:
    job = submit(member)
    path = f"/v1/jobs/{job['id']}"
    answers: list[httpx.Response] = []
    headers = {"If-None-Match": f'"{job["version"]}"', "Prefer": "respond-async, wait=25"}
    poll = threading.Thread(target=lambda: answers.append(member.get(path, headers=headers)))
    poll.start()
    admin.post(f"{path}/cancel")
    poll.join(timeout=20)
    assert not poll.is_alive()
    assert answers[0].status_code == 200
    assert answers[0].json()["status"] == "cancelled"
    assert answers[0].headers["preference-applied"] == "wait=25"


def test_a_long_poll_without_a_change_is_304_when_its_time_is_up(member: httpx.Client) -> None:
    job = submit(member)
    headers = {"If-None-Match": f'"{job["version"]}"', "Prefer": "wait=1"}
    answer = member.get(f"/v1/jobs/{job['id']}", headers=headers)
    assert answer.status_code == 304
    assert answer.headers["preference-applied"] == "wait=1"


def test_a_wait_is_at_most_a_minute(member: httpx.Client) -> None:
    job = submit(member)
    answer = member.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": '"0"', "Prefer": "wait=9999"})
    assert answer.headers["preference-applied"] == "wait=60"


def test_events_are_streamed_until_the_final_state_has_been_told(member: httpx.Client, database: Database) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    member.post(f"{path}/cancel")
    listed = member.get(f"{path}/events").json()["data"]
    streamed = _stream(member, f"{path}/events")
    assert [(m["id"], m["event"]) for m in streamed] == [("1", "job.queued"), ("2", "job.cancelled")]
    assert [event["type"] for event in listed] == ["job.queued", "job.cancelled"]
    assert _stream(member, f"{path}/events", last="1")[0]["event"] == "job.cancelled"
    assert _stream(member, f"{path}/events?after=1")[0]["event"] == "job.cancelled"
    assert _stream(member, f"{path}/events", last="2") == []


def test_a_stream_that_breaks_again_and_again_loses_and_repeats_nothing(member: httpx.Client, database: Database) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    fence = run_one(database)

    def work() -> None:
        for step in range(60):
            with database.transaction() as session:
                jobs.record_metrics(session, fence, {"student/train_loss": [(step, 1.0 / (step + 1))]})
        _cancel(database, fence)

    worker = threading.Thread(target=work)
    worker.start()
    seen: list[Message] = []
    while not seen or seen[-1]["event"] != "job.cancelled":
        seen += _stream(member, f"{path}/events", last=seen[-1]["id"] if seen else None, take=7)
    worker.join()
    ids = [int(message["id"]) for message in seen]
    assert ids == list(range(1, len(ids) + 1))
    assert ids[-1] == len(member.get(f"{path}/events").json()["data"])
    assert [message["event"] for message in seen].count("metrics") == 60


def test_several_readers_of_one_job_see_the_same(member: httpx.Client, database: Database) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    fence = run_one(database)
    seen: dict[int, list[Message]] = {}

    def read(number: int) -> None:
        seen[number] = _stream(member, f"{path}/events")

    readers = [threading.Thread(target=read, args=(number,)) for number in range(5)]
    for reader in readers:
        reader.start()
    for step in range(5):
        with database.transaction() as session:
            jobs.record_progress(
                session, fence, {"phase": "student", "step": step, "fraction": step / 5}, milestone=f"step {step}"
            )
    _cancel(database, fence)
    for reader in readers:
        reader.join()
    assert all(messages == seen[0] for messages in seen.values())
    assert [message["event"] for message in seen[0]].count("progress") == 5


def test_the_log_is_streamed_in_whole_lines_and_resumed_by_its_offset(member: httpx.Client, database: Database) -> None:
    path = f"/v1/jobs/{submit(member)['id']}/logs"
    fence = run_one(database)
    with database.transaction() as session:
        jobs.append_log(session, fence, "one\ntwo é\nthr")
    (first,) = _stream(member, path, take=1)
    assert (first["event"], first["data"]) == ("log", "one\ntwo é")
    assert first["id"] == str(len("one\ntwo é\n".encode()))
    with database.transaction() as session:
        jobs.append_log(session, fence, "ee\nno end")
    _cancel(database, fence)
    rest = _stream(member, path, last=first["id"])
    assert [message["data"] for message in rest] == ["three\nno end"]
    assert _stream(member, f"{path}?tail=1")[0]["data"] == "no end"


def test_the_client_reads_lines_that_hold_other_separators_than_line_ends(member: httpx.Client, database: Database) -> None:
    text = "one\u2028two\x0cthree\x85\nfour\n"
    job_id = submit(member)["id"]
    fence = run_one(database)
    with database.transaction() as session:
        jobs.append_log(session, fence, text)
    _cancel(database, fence)
    with Client(str(member.base_url), member.headers["authorization"].removeprefix("Bearer ")) as client:
        assert "".join(client.logs(job_id, follow=True)) == text


def test_a_quiet_stream_says_that_it_lives(member: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.streams.COMMENT_SECONDS", 0.05)
    path = f"/v1/jobs/{submit(member)['id']}/events"
    with member.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        assert ": still here" in response.iter_lines()


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30])
def test_a_last_event_id_that_is_no_number_is_refused(member: httpx.Client, last: str) -> None:
    job = submit(member)
    answer = member.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": last})
    assert answer.status_code == 400


def test_a_stream_of_no_job_is_404(member: httpx.Client) -> None:
    for kind in ("events", "logs"):
        answer = member.get(f"/v1/jobs/job_none/{kind}", headers={"Accept": "text/event-stream"})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_fifty_waiting_requests_leave_room_for_others(member: httpx.Client) -> None:
    job = submit(member)
    path = f"/v1/jobs/{job['id']}"
    headers = {"If-None-Match": f'"{job["version"]}"', "Prefer": "wait=20"}
    answers: list[int] = []
    polls = [threading.Thread(target=lambda: answers.append(member.get(path, headers=headers).status_code)) for _ in range(50)]
    for poll in polls:
        poll.start()
    assert all(member.get(path).status_code == 200 for _ in range(10))
    member.post(f"{path}/cancel")
    for poll in polls:
        poll.join()
    assert answers == [200] * 50
