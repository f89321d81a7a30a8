"""What a large queue may cost: one thread makes its outlook anew while the others read the last, and no draw goes on for ever."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.database import Database
from service.queue_policy import Rules
from service.scheduling import forecast
from service.scheduling.forecast import History
from service.scheduling.hosts import Device, Host, Need
from service.scheduling.explain import Outlook, Outlooks
from service.scheduling.policy import Lane, Pool, Share, Waiting
from service.tables import Job
from tests.integration.jobs.conftest import Team

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def team(database: Database) -> Team:
    return Team(database)


@contextmanager
def made_slowly(team: Team, outlooks: Outlooks) -> Iterator[threading.Thread]:
    """While another thread makes the outlook, and is kept from its end by a lock on the users."""
    with team.database.transaction() as holder:
        holder.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        thread = threading.Thread(target=team.do, args=(lambda session: outlooks.of(session, "default"),))
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass")
        while not team.do(lambda session: session.scalar(waiting)):
            assert thread.is_alive(), "it did not look at the users"
        yield thread
    thread.join()


def read(team: Team, outlooks: Outlooks) -> Outlook:
    return team.do(lambda session: outlooks.of(session, "default"))


def test_while_one_reader_makes_the_outlook_anew_the_others_get_the_last(team: Team) -> None:
    outlooks = Outlooks(lease_seconds=45, max_age_seconds=1e-9)
    first = team.submit()
    last = read(team, outlooks)
    second = team.submit()
    with made_slowly(team, outlooks):
        assert read(team, outlooks) is last
    assert list(last.places) == [first]
    assert list(read(team, outlooks).places) == [first, second]


def test_a_reader_that_finds_no_outlook_waits_for_the_one_that_is_being_made(team: Team) -> None:
    outlooks = Outlooks(lease_seconds=45, max_age_seconds=3600)
    job_id = team.submit()
    found: list[Outlook] = []
    with made_slowly(team, outlooks):
        reader = threading.Thread(target=lambda: found.append(read(team, outlooks)))
        reader.start()
        assert not found
    reader.join()
    assert list(found[0].places) == [job_id]
    assert read(team, outlooks) is found[0]


def test_a_job_that_came_after_the_last_outlook_has_its_place_by_a_new_one(team: Team) -> None:
    outlooks = Outlooks(lease_seconds=45, max_age_seconds=3600)
    first = team.submit()
    last = read(team, outlooks)
    second = team.submit()

    def place(session: Session) -> int | None:
        job = session.get(Job, second)
        assert job is not None
        found = outlooks.place(session, job)
        return None if found is None else found.position

    assert list(last.places) == [first]
    assert team.do(place) == 2


def test_a_draw_ends_after_its_thousandth_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MAX_STARTS", 10)
    queue = [waiting(number) for number in range(40)]
    pool = one_slot(queue)
    past = History(by_size={(0, 1): [60.0]})
    ahead, starting = pool.placed()
    found = forecast.starts(ahead, starting, [queue[9]], past)
    assert found[queue[9].id].p50 == NOW + timedelta(minutes=9)
    assert forecast.starts(ahead, starting, [queue[10]], past) == {}


def waiting(number: int) -> Waiting:
    at = NOW - timedelta(seconds=100 - number)
    return Waiting(f"job_{number:02}", "user_ana", 1, 1, at, at, Need(), "cpu:1", bound_seconds=3600.0)


def one_slot(queue: list[Waiting]) -> Pool:
    lane = Lane(queue[0].lane, queue[0].need, list(queue))
    host = Host("worker_1", "here", (Device("cpu:0"),))
    return Pool("default", NOW, Rules(), {"user_ana": Share("user_ana", "ana")}, {lane.key: lane}, [], lambda: [host])


def test_the_last_known_job_of_a_lane_that_starts_in_thought_does_not_wait_again() -> None:
    queue = [waiting(number) for number in range(6)]
    lane = Lane(queue[0].lane, queue[0].need, queue[:3], extend=lambda lane: lane.add(queue[len(lane.jobs) :]))
    ahead = lane.copy()
    ahead.jobs.remove(queue[2])
    ahead.extend(ahead)
    assert ahead.jobs == [*queue[:2], *queue[3:]]
    assert lane.jobs == queue, "what the copy asks for, the lane itself learns"
    ahead.extend(ahead)
    assert ahead.jobs == [*queue[:2], *queue[3:]]
