"""The cache of queue statuses: one thread computes a new one while the others read the last."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.database import Database
from service.scheduling.explain import QueueStatus
from service.scheduling.queue_status_cache import QueueStatusCache
from service.tables import Job
from tests.integration.jobs.conftest import Team


@pytest.fixture
def team(database: Database) -> Team:
    return Team(database)


@contextmanager
def computed_slowly(team: Team, cache: QueueStatusCache) -> Iterator[threading.Thread]:
    """While another thread computes the status, and a lock on the users keeps it from finishing."""
    with team.database.transaction() as holder:
        holder.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        thread = threading.Thread(target=team.do, args=(lambda session: cache.of(session, "default"),))
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass")
        while not team.do(lambda session: session.scalar(waiting)):
            assert thread.is_alive(), "it did not read the users"
        yield thread
    thread.join()


def read(team: Team, cache: QueueStatusCache) -> QueueStatus:
    return team.do(lambda session: cache.of(session, "default"))


def test_while_one_reader_computes_the_status_anew_the_others_get_the_last(team: Team) -> None:
    cache = QueueStatusCache(lease_seconds=45, max_age_seconds=1e-9)
    first = team.submit()
    last = read(team, cache)
    second = team.submit()
    with computed_slowly(team, cache):
        assert read(team, cache) is last
    assert list(last.places) == [first]
    assert list(read(team, cache).places) == [first, second]


def test_a_reader_that_finds_no_status_waits_for_the_one_that_is_being_computed(team: Team) -> None:
    cache = QueueStatusCache(lease_seconds=45, max_age_seconds=3600)
    job_id = team.submit()
    found: list[QueueStatus] = []
    with computed_slowly(team, cache):
        reader = threading.Thread(target=lambda: found.append(read(team, cache)))
        reader.start()
        assert not found
    reader.join()
    assert list(found[0].places) == [job_id]
    assert read(team, cache) is found[0]


def test_a_job_that_came_after_the_last_status_has_its_place_by_a_new_one(team: Team) -> None:
    cache = QueueStatusCache(lease_seconds=45, max_age_seconds=3600)
    first = team.submit()
    last = read(team, cache)
    second = team.submit()

    def place(session: Session) -> int | None:
        job = session.get(Job, second)
        assert job is not None
        found = cache.place(session, job)
        return None if found is None else found.position

    assert list(last.places) == [first]
    assert team.do(place) == 2
