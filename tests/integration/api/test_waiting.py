"""Long polls and live streams, against jobs that a worker writes to at the same time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

import httpx
import pytest
import redis
from sqlalchemy import event

from service import jobs
from service.client import Client
from service.database import Database
from service.embedded.servers import Valkey
from service.jobs import Fence
from tests.integration.api.conftest import Api, Team, run_one, submit

Message = dict[str, str]
Turn = Callable[[Valkey, redis.Redis], AbstractContextManager[None]]
"""What Redis undergoes at the begin of the block."""


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


def test_each_stream_has_headers_of_its_own(member: httpx.Client) -> None:
    path = f"/v1/jobs/{submit(member)['id']}/events"
    for _ in range(3):
        with member.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
            assert len(response.headers.get_list("x-request-id")) == 1


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


def _progress(database: Database, fence: Fence, step: int) -> None:
    with database.transaction() as session:
        jobs.record_progress(session, fence, {"phase": "student", "step": step}, milestone=f"step {step}")


@contextmanager
def _events(client: httpx.Client, path: str) -> Iterator[Iterator[Message]]:
    with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        yield _messages(response.iter_lines())


@contextmanager
def _statements(api: Api) -> Iterator[list[str]]:
    """What the API's waiting requests read meanwhile."""
    read: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread().name.startswith("watches"):
            read.append(statement)

    engine = api.server.services.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield read
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _until_waiting(api: Api, job_id: str, *, polls: int, feeds: int = 0) -> None:
    """Waits until so many requests wait in the API."""
    while True:
        watch = api.server.services.watches._watches.get(job_id)
        if watch is not None and len(watch.polls) == polls and len(watch.feeds) >= feeds:
            return
        time.sleep(0.01)


def test_a_change_is_read_once_for_all_streams_and_polls_of_the_job(member: httpx.Client, database: Database, api: Api) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    fence = run_one(database)
    with ExitStack() as streams, ThreadPoolExecutor(10) as pool:
        messages = [streams.enter_context(_events(member, f"{path}/events")) for _ in range(10)]
        assert [next(each)["event"] for each in messages for _ in range(2)] == ["job.queued", "job.running"] * 10
        headers = {"If-None-Match": member.get(path).headers["etag"], "Prefer": "wait=30"}
        polls = [pool.submit(member.get, path, headers=headers) for _ in range(10)]
        _until_waiting(api, fence.job_id, polls=10)
        with _statements(api) as read:
            _progress(database, fence, 1)
            assert [poll.result().status_code for poll in polls] == [200] * 10
            assert [next(each)["event"] for each in messages] == ["progress"] * 10
        assert sum("job_events" in statement for statement in read) == 1
        assert len(read) <= 6


def test_a_change_is_seen_without_redis(member: httpx.Client, database: Database, valkey_server: Valkey) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    fence = run_one(database)
    with _events(member, f"{path}/events") as messages:
        assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.running"]
        valkey_server.stop()
        try:
            _progress(database, fence, 1)
            assert next(messages)["event"] == "progress"
        finally:
            valkey_server.start()
        _progress(database, fence, 2)
        assert next(messages)["event"] == "progress"


@contextmanager
def _flushed(server: Valkey, client: redis.Redis) -> Iterator[None]:
    client.flushall()
    yield


@contextmanager
def _replaced_by_an_empty_one(server: Valkey, client: redis.Redis) -> Iterator[None]:
    server.stop()
    server.start()
    yield


@contextmanager
def _made_a_replica(server: Valkey, client: redis.Redis) -> Iterator[None]:
    """Of a server that is not there."""
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def _closed_to_notifications(server: Valkey, client: redis.Redis) -> Iterator[None]:
    client.acl_setuser("default", enabled=True, reset_channels=True)
    yield
    client.acl_setuser("default", enabled=True, channels=["*"])


@pytest.mark.parametrize("turn", [_flushed, _replaced_by_an_empty_one, _made_a_replica, _closed_to_notifications])
def test_who_waits_sees_every_change_whatever_redis_undergoes(
    member: httpx.Client, database: Database, api: Api, valkey_server: Valkey, turn: Turn
) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    fence = run_one(database)
    with (
        _events(member, f"{path}/events") as messages,
        ThreadPoolExecutor(1) as pool,
        redis.Redis.from_url(valkey_server.url) as client,
    ):
        assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.running"]

        def poll() -> Future[httpx.Response]:
            headers = {"If-None-Match": member.get(path).headers["etag"], "Prefer": "wait=30"}
            waiting = pool.submit(member.get, path, headers=headers)
            _until_waiting(api, fence.job_id, polls=1)
            return waiting

        polling = poll()
        with turn(valkey_server, client):
            for step in (1, 2):
                _progress(database, fence, step)
                assert next(messages)["event"] == "progress"
                assert polling.result().status_code == 200
                polling = poll()
        _progress(database, fence, 3)
        assert next(messages)["event"] == "progress"
        assert polling.result().status_code == 200


def test_a_revoked_key_ends_its_streams_and_long_polls_and_no_others(
    team: Team, member: httpx.Client, admin: httpx.Client
) -> None:
    job = submit(member)
    path = f"/v1/jobs/{job['id']}"
    leaver = team.join("leaver", "viewer")
    headers = {"If-None-Match": f'"{job["version"]}"', "Prefer": "wait=60"}
    with ThreadPoolExecutor(2) as pool, _events(leaver, f"{path}/events") as theirs, _events(member, f"{path}/events") as mine:
        assert next(theirs)["event"] == next(mine)["event"] == "job.queued"
        poll = pool.submit(leaver.get, path, headers=headers)
        log = pool.submit(lambda: leaver.get(f"{path}/logs", headers={"Accept": "text/event-stream"}).text)
        _until_waiting(team.api, job["id"], polls=1, feeds=2)
        admin.delete(f"/v1/keys/{leaver.get('/v1/me').json()['key_id']}")
        assert list(theirs) == []
        assert "revoked" in log.result()
        assert (poll.result().status_code, poll.result().json()["code"]) == (401, "unauthenticated")
        member.post(f"{path}/cancel")
        assert [message["event"] for message in mine] == ["job.cancelled"]


def test_a_key_that_is_revoked_while_redis_is_away_ends_its_streams(
    team: Team, member: httpx.Client, admin: httpx.Client, valkey_server: Valkey
) -> None:
    path = f"/v1/jobs/{submit(member)['id']}/events"
    leaver = team.join("leaver", "viewer")
    with _events(leaver, path) as messages:
        assert next(messages)["event"] == "job.queued"
        valkey_server.stop()
        try:
            admin.delete(f"/v1/keys/{leaver.get('/v1/me').json()['key_id']}")
            assert list(messages) == []
        finally:
            valkey_server.start()


def test_a_long_poll_of_a_job_that_is_deleted_is_404(member: httpx.Client, api: Api) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    member.post(f"{path}/cancel")
    headers = {"If-None-Match": member.get(path).headers["etag"], "Prefer": "wait=60"}
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(member.get, path, headers=headers)
        _until_waiting(api, path.rpartition("/")[2], polls=1)
        member.delete(path)
        assert poll.result().status_code == 404


def test_a_client_that_does_not_read_holds_up_nobody_and_misses_nothing(
    member: httpx.Client, database: Database, api: Api
) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    fence = run_one(database)
    address = httpx.URL(api.url)
    with socket.socket() as slow, _events(member, f"{path}/events") as messages:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.host, address.port))
        request = f"GET {path}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: "
        slow.sendall(f"{request}{member.headers['authorization']}\r\nConnection: close\r\n\r\n".encode())
        for step in range(60):  # far more than buffers hold, and than a feed keeps
            with database.transaction() as session:
                jobs.record_warning(session, fence, code="long", message=f"{step} " + "x" * 100_000)
        _cancel(database, fence)
        read = [message["event"] for message in messages]
        assert (read.count("job.warning"), read[-1]) == (60, "job.cancelled")
        received = b"".join(iter(lambda: slow.recv(1 << 16), b""))
    assert received.count(b"event: job.warning") == 60
    assert received.count(b"event: job.cancelled") == 1
