"""Notifications of what changed from one process's commit to those who wait in another, through Redis and its outages."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Set
from contextlib import asynccontextmanager, closing
from typing import Any, TypeVar

import pytest
import redis

from service import jobs
from service import team as team_of_users
from service.database import Database
from service.embedded.servers import Valkey
from service.notifications import CHANNEL, Listener, Notifier
from service.security import create_key
from tests.integration.jobs.conftest import Team, cancel, checkpoint, log, metrics, progress, renew

T = TypeVar("T")
TIMEOUT_SECONDS = 60
GAP = frozenset({"gap"})


@pytest.fixture
def client(valkey_server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_server.url) as opened:
        yield opened


@pytest.fixture
def notifier(valkey_server: Valkey) -> Iterator[Notifier]:
    with closing(Notifier(valkey_server.url)) as opened:
        yield opened


def within_time(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, TIMEOUT_SECONDS)

    return asyncio.run(limited())


class Heard:
    """What a listener says, one after another."""

    def __init__(self, url: str) -> None:
        self._said: asyncio.Queue[Set[str]] = asyncio.Queue()
        self.listener = Listener(url, changed=self._said.put_nowait, gap=lambda: self._said.put_nowait(GAP))

    async def next(self) -> Set[str]:
        return await self._said.get()

    async def until(self, id_: str) -> None:
        while id_ not in await self.next():
            pass


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Heard]:
    heard = Heard(url)
    async with heard.listener.running():
        yield heard


def test_every_process_hears_of_every_change_once(valkey_server: Valkey, notifier: Notifier) -> None:
    async def scenario() -> None:
        async with listening(valkey_server.url) as here, listening(valkey_server.url) as there:
            for heard in (here, there):
                assert await heard.next() == GAP  # what was published before, nobody heard
            await asyncio.to_thread(notifier, {"job_a", "job_b"})
            await asyncio.to_thread(notifier, {"key_a"})
            for heard in (here, there):
                assert [await heard.next(), await heard.next()] == [{"job_a", "job_b"}, {"key_a"}]

    within_time(scenario())


def test_a_redis_that_comes_back_is_listened_to_and_the_gap_is_told(valkey_server: Valkey, notifier: Notifier) -> None:
    async def scenario() -> None:
        async with listening(valkey_server.url) as heard:
            assert await heard.next() == GAP
            await asyncio.to_thread(valkey_server.stop)
            try:
                await asyncio.to_thread(notifier, {"job_lost"})  # no error
            finally:
                valkey_server.start()  # here: it ends with the thread that started it
            await heard.until("gap")
            await asyncio.to_thread(notifier, {"job_a"})
            await heard.until("job_a")

    within_time(scenario())


def test_a_redis_that_is_deaf_is_found_out(valkey_server: Valkey, notifier: Notifier) -> None:
    async def scenario() -> None:
        async with listening(valkey_server.url) as heard:
            assert await heard.next() == GAP
            os.kill(valkey_server.pid, signal.SIGSTOP)
            try:
                await asyncio.to_thread(notifier, {"job_lost"})
                while heard.listener.is_listening:
                    await asyncio.sleep(0.01)
            finally:
                os.kill(valkey_server.pid, signal.SIGCONT)
            await heard.until("gap")
            await asyncio.to_thread(notifier, {"job_a"})
            await heard.until("job_a")

    within_time(scenario())


def test_what_redis_did_not_take_is_sent_as_soon_as_it_does(
    valkey_server: Valkey, client: redis.Redis, notifier: Notifier
) -> None:
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(CHANNEL)
        assert pubsub.get_message(timeout=TIMEOUT_SECONDS) is not None
        os.kill(valkey_server.pid, signal.SIGSTOP)
        try:
            for job_id in ("job_a", "job_b"):
                notifier({job_id})
        finally:
            os.kill(valkey_server.pid, signal.SIGCONT)
        waited_for = {"job_a", "job_b"}
        while waited_for:
            message = pubsub.get_message(timeout=TIMEOUT_SECONDS)
            waited_for -= set(message["data"].decode().split())


class Overtaken(Notifier):
    """A job changes once more while Redis answers the notification of its last change."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(redis_url)
        self.has_changed_again = threading.Event()

    def _publish(self, ids: Set[str]) -> bool:
        is_sent = super()._publish(ids)
        if is_sent and not self.has_changed_again.is_set():
            self(ids)
            self.has_changed_again.set()
        return is_sent


def test_a_job_that_changes_while_its_notification_is_sent_late_is_notified_of_again(
    valkey_server: Valkey, client: redis.Redis
) -> None:
    with closing(Overtaken(valkey_server.url)) as notifier, client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(CHANNEL)
        assert pubsub.get_message(timeout=TIMEOUT_SECONDS) is not None
        os.kill(valkey_server.pid, signal.SIGSTOP)
        try:
            notifier({"job_b"})
        finally:
            os.kill(valkey_server.pid, signal.SIGCONT)
        assert notifier.has_changed_again.wait(TIMEOUT_SECONDS)
        client.publish(CHANNEL, "until here")
        while pubsub.get_message(timeout=TIMEOUT_SECONDS)["data"] != b"until here":
            pass
        assert pubsub.get_message(timeout=TIMEOUT_SECONDS)["data"] == b"job_b"


def test_a_message_that_is_no_notification_ends_no_subscription(
    valkey_server: Valkey, client: redis.Redis, notifier: Notifier
) -> None:
    async def scenario() -> None:
        async with listening(valkey_server.url) as heard:
            assert await heard.next() == GAP
            await asyncio.to_thread(client.publish, CHANNEL, b"\xff\xfe")
            await asyncio.to_thread(notifier, {"job_a"})
            await heard.until("job_a")
            assert heard.listener.is_listening

    within_time(scenario())


def test_connections_that_redis_cuts_are_made_anew(valkey_server: Valkey, client: redis.Redis, notifier: Notifier) -> None:
    async def scenario() -> None:
        async with listening(valkey_server.url) as heard:
            assert await heard.next() == GAP
            await asyncio.to_thread(notifier, {"job_a"})
            await heard.until("job_a")
            for kind in ("pubsub", "normal"):
                await asyncio.to_thread(client.client_kill_filter, _type=kind, skipme=True)
            assert await heard.next() == GAP
            await asyncio.to_thread(notifier, {"job_b"})
            await heard.until("job_b")

    within_time(scenario())


def test_who_starts_without_redis_listens_as_soon_as_there_is_one(valkey_server: Valkey, notifier: Notifier) -> None:
    async def scenario() -> None:
        await asyncio.to_thread(valkey_server.stop)
        try:
            async with listening(valkey_server.url) as heard:
                await asyncio.to_thread(notifier, {"job_lost"})
                valkey_server.start()  # here: it ends with the thread that started it
                await heard.until("gap")
                await asyncio.to_thread(notifier, {"job_a"})
                await heard.until("job_a")
        finally:
            await asyncio.to_thread(valkey_server.stop)
            valkey_server.start()  # here: it ends with the thread that started it

    within_time(scenario())


# ---------------------------------------------------------------- which writes notify


Published = Callable[[], set[str]]


@pytest.fixture
def published(database: Database, client: redis.Redis) -> Iterator[Published]:
    """The ids that were published since the last call."""
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(CHANNEL)
        assert pubsub.get_message(timeout=TIMEOUT_SECONDS) is not None

        def since_last_call() -> set[str]:
            client.publish(CHANNEL, "end")
            found = set()
            while (message := pubsub.get_message(timeout=TIMEOUT_SECONDS)) is not None and message["data"] != b"end":
                found |= set(message["data"].decode().split())
            return found

        yield since_last_call


def test_what_a_transaction_changed_is_published_after_its_commit(database: Database, published: Published) -> None:
    team = Team(database)
    first, second = team.submit(), team.submit()
    assert published() == set()  # nobody can wait for a job that was not there
    with database.transaction() as session:
        for job_id in (first, second):
            jobs.edit(session, job_id, name="new")
        session.flush()
        assert published() == set()
    assert published() == {first, second}


def test_who_reads_at_the_moment_of_the_notification_sees_the_change(database: Database, database_url: str) -> None:
    seen: list[tuple[str, str]] = []

    def look(job_ids: Set[str]) -> None:
        with database.transaction() as session:
            seen.extend((job_id, jobs.get(session, job_id).name) for job_id in job_ids)

    with closing(Database(database_url, notify=look)) as announcing:
        job_id = Team(announcing).submit()
        for name in ("first", "second"):
            with announcing.transaction() as session:
                jobs.edit(session, job_id, name=name)
    assert seen == [(job_id, "first"), (job_id, "second")]


def test_what_was_rolled_back_or_only_read_is_not_published(database: Database, published: Published) -> None:
    team = Team(database)
    fence = team.running()
    published()
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        assert cancel(session, fence) and 1 / 0  # noqa: PT018
    team.job(fence.job_id)
    team.do(renew, fence)
    assert published() == set()


def test_every_write_that_a_reader_can_see_is_published(database: Database, published: Published) -> None:
    team = Team(database)
    fence = team.running()
    published()
    for write in (progress, metrics, log, checkpoint, cancel):
        team.do(write, fence)
        assert published() == {fence.job_id}, write


def test_a_job_that_another_settles_is_published_too(database: Database, published: Published) -> None:
    team = Team(database)
    fence = team.running()
    waiting = team.submit(depends_on=[fence.job_id])
    published()
    team.do(cancel, fence)
    team.do(lambda session: jobs.settle_stopped(session, fence, reason="cancel"))
    assert published() == {fence.job_id, waiting}


def test_a_job_that_is_deleted_and_a_key_that_is_revoked_are_published_too(database: Database, published: Published) -> None:
    team = Team(database)
    fence = team.running()
    team.do(cancel, fence)
    team.do(lambda session: jobs.settle_stopped(session, fence, reason="cancel"))
    with database.transaction() as session:
        key, _ = create_key(session, user_name="eve", role="viewer")
    published()
    team.do(jobs.remove, fence.job_id)
    assert published() == {fence.job_id}
    team.do(team_of_users.revoke, key.id)
    assert published() == {key.id}
