"""Requests that arrive while the process's reader reads, or cannot: none sleeps through a change, none gets an older version."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial

import psycopg
import pytest
from sqlalchemy.orm import Session
from starlette.types import Message

from service import jobs
from service.api.news import View
from service.api.responses.jobs import Answer, job_answer
from service.api.streams import event_messages
from service.api.waiting import Watch, Watches
from service.database import Database
from service.embedded.servers import Valkey
from service.errors import NotFound, Unavailable
from service.notifications import Notifier
from service.scheduling.queue_status_cache import QueueStatusCache
from tests.integration.jobs.conftest import Team

TIMEOUT_SECONDS = 60
KEY = "key_ada"


@pytest.fixture
def view() -> View:
    return partial(job_answer, QueueStatusCache(lease_seconds=45, max_age_seconds=0))


@asynccontextmanager
async def running(database: Database, valkey_server: Valkey, view: View) -> AsyncIterator[Watches]:
    """From the moment on at which it hears of changes, so that nothing is read but for them."""
    async with Watches(database, valkey_server.url, view).running() as watches:
        while not watches._listener.is_listening:
            await asyncio.sleep(0.01)
        yield watches


def rename(database: Database, job_id: str, name: str) -> int:
    """Changes the job; returns its version."""
    with database.transaction() as session:
        return jobs.edit(session, job_id, name=name).version


async def poll(watches: Watches, watch: Watch, version: int, *, wait_seconds: float) -> Answer | None:
    return await watches.answer(watch, KEY, version=version, is_new=lambda new: new != version, wait_seconds=wait_seconds)


async def begin_poll(
    watches: Watches, watch: Watch, version: int, *, wait_seconds: float = TIMEOUT_SECONDS
) -> "asyncio.Task[Answer | None]":
    """A poll that waits when this returns."""
    num_polls = len(watch.polls)
    task = asyncio.create_task(poll(watches, watch, version, wait_seconds=wait_seconds))
    while len(watch.polls) == num_polls:
        await asyncio.sleep(0)
    return task


async def ignore(_: Message) -> None:
    """Takes what a stream sends."""


@contextmanager
def locked_jobs(url: str) -> Iterator[psycopg.Connection]:
    """Who reads jobs waits for the end of the block."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        yield connection


def num_waiting(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted").fetchone()
    assert row is not None
    return int(row[0])


def test_a_poll_that_comes_while_a_change_is_read_gets_it(
    database: Database, database_url: str, valkey_server: Valkey, view: View
) -> None:
    job_id = Team(database).submit()

    async def scenario() -> None:
        async with running(database, valkey_server, view) as watches:
            with watches.watching(job_id) as watch, closing(Notifier(valkey_server.url)) as notifier:
                with closing(Database(database_url)) as quiet:
                    changed = rename(quiet, job_id, "new")
                with locked_jobs(database_url) as connection:
                    notifier({job_id})
                    while not num_waiting(connection):
                        await asyncio.sleep(0.01)
                    polling = await begin_poll(watches, watch, changed - 1, wait_seconds=5)
                answer = await polling
                assert answer is not None
                assert answer.version == changed

    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_SECONDS))


def test_a_poll_that_has_read_a_change_is_not_answered_with_the_one_before(
    database: Database, valkey_server: Valkey, view: View
) -> None:
    job_id = Team(database).submit()
    has_read, may_go_on = threading.Event(), threading.Event()

    def slow_view(session: Session, job_id: str) -> Answer:
        answer = view(session, job_id)
        has_read.set()
        assert may_go_on.wait(TIMEOUT_SECONDS)
        return answer

    async def scenario() -> None:
        async with running(database, valkey_server, slow_view) as watches:
            with watches.watching(job_id) as watch:
                first = await begin_poll(watches, watch, 1)
                changed = await asyncio.to_thread(rename, database, job_id, "new")
                await asyncio.to_thread(has_read.wait, TIMEOUT_SECONDS)
                changed_again = await asyncio.to_thread(rename, database, job_id, "newer")
                second = await begin_poll(watches, watch, changed_again, wait_seconds=1)
                may_go_on.set()
                answer = await first
                assert answer is not None
                assert answer.version == changed
                assert await second is None

    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_SECONDS))


def test_a_stream_begins_at_once_or_is_refused_while_nothing_can_be_read(
    database: Database, database_url: str, valkey_server: Valkey, view: View
) -> None:
    team = Team(database)
    polled, unknown = team.submit(), team.submit()

    async def scenario() -> None:
        with closing(Database(database_url, answer_seconds=0.5)) as impatient:
            async with running(impatient, valkey_server, view) as watches:
                with watches.watching(polled) as watch:
                    polling = await begin_poll(watches, watch, 1)
                    with locked_jobs(database_url):
                        with pytest.raises(Unavailable):
                            async with watches.stream(unknown, KEY, event_messages, position=0, send=ignore):
                                pass
                        async with watches.stream(polled, KEY, event_messages, position=0, send=ignore):
                            assert not polling.done()
                    await asyncio.to_thread(rename, database, polled, "new")
                    assert await polling is not None

    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_SECONDS))


def test_who_begins_to_wait_for_a_job_that_is_lost_from_sight_meanwhile_is_told_so(
    database: Database, database_url: str, valkey_server: Valkey, view: View
) -> None:
    team = Team(database)
    deleted, unread = team.submit(), team.submit()

    def delete() -> None:
        with database.transaction() as session:
            jobs.request_cancel(session, deleted, keep="none")
            session.flush()
            jobs.remove(session, deleted)

    async def scenario() -> None:
        with closing(Database(database_url, answer_seconds=0.5)) as impatient:
            async with running(impatient, valkey_server, view) as watches:
                with watches.watching(deleted) as watch:
                    polling = await begin_poll(watches, watch, 1)
                    await asyncio.to_thread(delete)
                    for each in (polling, poll(watches, watch, 1, wait_seconds=TIMEOUT_SECONDS)):
                        with pytest.raises(NotFound):
                            await each
                with watches.watching(unread) as watch, locked_jobs(database_url):
                    with pytest.raises(Unavailable):
                        async with watches.stream(unread, KEY, event_messages, position=0, send=ignore):
                            pass
                    with pytest.raises(Unavailable):
                        await poll(watches, watch, 1, wait_seconds=TIMEOUT_SECONDS)

    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_SECONDS))
