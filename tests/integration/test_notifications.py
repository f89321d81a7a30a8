"""Notifications of changed jobs from one process's commit to another's waiting request, through Redis and its outages."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Set
from contextlib import closing
from typing import Any, TypeVar

import pytest
import redis

from service import jobs
from service.database import Database
from service.embedded.servers import Valkey
from service.notifications import CHANNEL, JobNotifier, NotificationHub, wait_for_notification
from tests.integration.jobs.conftest import Team, cancel, checkpoint, log, metrics, progress, renew

T = TypeVar("T")
TIMEOUT_SECONDS = 60


@pytest.fixture
def client(valkey_server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_server.url) as opened:
        yield opened


@pytest.fixture
def notifier(valkey_server: Valkey) -> Iterator[JobNotifier]:
    with closing(JobNotifier(valkey_server.url)) as opened:
        yield opened


def within_time(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, TIMEOUT_SECONDS)

    return asyncio.run(limited())


async def listening(client: redis.Redis, *, listeners: int = 1) -> None:
    """Waits until that many hubs are subscribed."""
    while await asyncio.to_thread(client.pubsub_numsub, CHANNEL) != [(CHANNEL.encode(), listeners)]:
        await asyncio.sleep(0.01)


async def told(event: asyncio.Event) -> None:
    await event.wait()
    event.clear()


def test_who_waits_for_a_job_is_woken_by_its_notifications_and_by_no_others(
    valkey_server: Valkey, client: redis.Redis, notifier: JobNotifier
) -> None:
    async def scenario() -> None:
        async with NotificationHub(valkey_server.url).running() as hub:
            with hub.subscribed("job_a") as first, hub.subscribed("job_a") as second, hub.subscribed("job_b") as other:
                await listening(client)
                await asyncio.to_thread(notifier, {"job_a", "job_c"})
                await told(first)
                await told(second)
                assert not other.is_set()
                await asyncio.to_thread(notifier, {"job_b"})
                await told(other)
                assert not first.is_set()

    within_time(scenario())


def test_who_has_left_is_not_told_and_who_stays_is(valkey_server: Valkey, client: redis.Redis, notifier: JobNotifier) -> None:
    async def scenario() -> None:
        async with NotificationHub(valkey_server.url).running() as hub:
            with hub.subscribed("job_a") as stays:
                with hub.subscribed("job_a") as left:
                    await listening(client)
                await asyncio.to_thread(notifier, {"job_a"})
                await told(stays)
                assert not left.is_set()

    within_time(scenario())


def test_every_process_gets_the_same_notifications(valkey_server: Valkey, client: redis.Redis, notifier: JobNotifier) -> None:
    async def scenario() -> None:
        async with NotificationHub(valkey_server.url).running() as here, NotificationHub(valkey_server.url).running() as there:
            with here.subscribed("job_a") as first, there.subscribed("job_a") as second:
                await listening(client, listeners=2)
                await asyncio.to_thread(notifier, {"job_a"})
                await told(first)
                await told(second)

    within_time(scenario())


def test_a_redis_that_goes_wakes_everybody_and_one_that_comes_back_is_listened_to(
    valkey_server: Valkey, client: redis.Redis, notifier: JobNotifier
) -> None:
    async def scenario() -> None:
        async with NotificationHub(valkey_server.url).running() as hub:
            with hub.subscribed("job_a") as first, hub.subscribed("job_b") as second:
                await listening(client)
                await asyncio.to_thread(valkey_server.stop)
                try:
                    await told(first)
                    await told(second)
                    await asyncio.to_thread(notifier, {"job_a"})  # lost, and no error
                finally:
                    await asyncio.to_thread(valkey_server.start)
                await listening(client)
                first.clear()
                await asyncio.to_thread(notifier, {"job_a"})
                await told(first)

    within_time(scenario())


def test_a_hub_that_starts_without_redis_listens_as_soon_as_there_is_one(
    valkey_server: Valkey, client: redis.Redis, notifier: JobNotifier
) -> None:
    async def scenario() -> None:
        valkey_server.stop()
        try:
            hub = NotificationHub(valkey_server.url)
            async with hub.running():
                with hub.subscribed("job_a") as event:
                    await told(event)  # look by yourself
                    await asyncio.to_thread(valkey_server.start)
                    await listening(client)
                    event.clear()
                    await asyncio.to_thread(notifier, {"job_a"})
                    await told(event)
        finally:
            valkey_server.stop()
            valkey_server.start()

    within_time(scenario())


def test_a_process_that_goes_down_wakes_everybody(valkey_server: Valkey) -> None:
    async def scenario() -> None:
        hub = NotificationHub(valkey_server.url)
        async with hub.running():
            with hub.subscribed("job_a") as event:
                assert not hub.closing
                hub.end_waits()
                assert hub.closing
                await told(event)
            with hub.subscribed("job_b") as late:
                pass
        assert not late.is_set()

    within_time(scenario())


def test_a_wait_ends_by_a_notification_or_when_it_is_time_to_look(valkey_server: Valkey) -> None:
    async def scenario() -> None:
        event = asyncio.Event()
        event.set()
        await wait_for_notification(event, timeout_seconds=3600)  # a notification that came before the wait
        assert not event.is_set()
        await wait_for_notification(event, timeout_seconds=0)
        await wait_for_notification(event, timeout_seconds=3600)  # no notification, and long before that time it is time to look

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
                found.add(message["data"].decode())
            return found

        yield since_last_call


def test_what_a_transaction_changed_is_published_after_its_commit(database: Database, published: Published) -> None:
    team = Team(database)
    first, second = team.submit(), team.submit()
    assert published() == {first, second}
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
        job_id = Team(announcing).submit(name="first")
        with announcing.transaction() as session:
            jobs.edit(session, job_id, name="second")
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
