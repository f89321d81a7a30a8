"""Transactions on a database that fails: what is done again, what never is, and what is told at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service.database import Database
from service.part_errors import Meaning, meaning_of
from tests.integration.conftest import on_database
from tests.integration.database_faults import frozen, terminate

LIMIT_SECONDS = 1.0


@pytest.fixture
def hasty(database_url: str) -> Iterator[Database]:
    """Waits for an answer no longer than a second."""
    with closing(Database(database_url, answer_seconds=LIMIT_SECONDS)) as opened:
        yield opened


@pytest.fixture
def counters(database_url: str) -> Iterator[Callable[[], list[int]]]:
    """Two rows to write; answers what they hold."""

    def execute(statement: str) -> psycopg.Cursor:
        with psycopg.connect(database_url, autocommit=True) as connection:
            return connection.execute(statement.encode())

    execute("CREATE TABLE counters (id int PRIMARY KEY, value int NOT NULL)")
    execute("INSERT INTO counters VALUES (1, 0), (2, 0)")
    yield lambda: [row[0] for row in execute("SELECT value FROM counters ORDER BY id").fetchall()]
    execute("DROP TABLE counters")


def add_one(session: Session, row: int = 1) -> None:
    session.execute(text("UPDATE counters SET value = value + 1 WHERE id = :row"), {"row": row})


def test_a_session_that_ended_while_it_was_idle_is_noticed_by_nobody(
    hasty: Database, database_url: str, counters: Callable[[], list[int]]
) -> None:
    hasty.run(add_one)
    with psycopg.connect(database_url) as _kept:
        assert terminate(database_url) >= 2
    with hasty.transaction() as session:  # which does nothing again
        add_one(session)


def test_work_whose_connection_is_lost_is_done_again_and_counts_once(
    hasty: Database, database_url: str, counters: Callable[[], list[int]]
) -> None:
    tries = []

    def work(session: Session) -> None:
        add_one(session)
        tries.append(session.scalar(text("SELECT pg_backend_pid()")))
        if len(tries) == 1:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    hasty.run(work)
    assert len(tries) == 2
    assert counters() == [1, 0]


def test_a_commit_of_which_nobody_knows_is_not_done_again(hasty: Database, counters: Callable[[], list[int]]) -> None:
    """A deferred trigger ends the session in the middle of COMMIT, after the work was done."""
    tries = []

    def work(session: Session) -> None:
        tries.append(1)
        add_one(session)

    with hasty.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END'"
            )
        )
        trigger = "CREATE CONSTRAINT TRIGGER leave AFTER UPDATE ON counters DEFERRABLE INITIALLY DEFERRED"
        connection.execute(text(f"{trigger} FOR EACH ROW EXECUTE FUNCTION leave()"))
    with pytest.raises(DBAPIError) as caught:
        hasty.run(work)
    assert meaning_of(caught.value) is Meaning.AWAY
    assert len(tries) == 1
    with hasty.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER leave ON counters"))
        connection.execute(text("DROP FUNCTION leave"))


def test_two_that_wait_for_each_other_both_end(hasty: Database, counters: Callable[[], list[int]]) -> None:
    """A deadlock: the one that PostgreSQL chooses is done again."""
    met = threading.Barrier(2)
    has_met = {1: False, 2: False}

    def both(session: Session, mine: int, other: int) -> None:
        session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
        add_one(session, mine)
        if not has_met[mine]:
            has_met[mine] = True
            met.wait()
        add_one(session, other)

    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(hasty.run, lambda session, own=own: both(session, own, 3 - own)) for own in (1, 2)]
        for end in ends:
            end.result()
    assert counters() == [2, 2]


def test_a_plan_that_no_longer_fits_is_made_anew_on_every_connection(
    hasty: Database, database_url: str, counters: Callable[[], list[int]]
) -> None:
    def read(session: Session) -> int:
        return int(session.execute(text("SELECT id, value FROM counters WHERE id = 1")).one().value)

    def read_on_two_connections() -> set[int]:
        with hasty.transaction() as one, hasty.transaction() as other:
            return {read(one), read(other)}

    for _ in range(10):  # more than psycopg wants before it prepares a statement
        read_on_two_connections()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE counters ALTER COLUMN value TYPE bigint")
    assert hasty.run(read) == 0
    assert read_on_two_connections() == {0}


def test_a_prepared_statement_that_somebody_deallocated_is_prepared_again(hasty: Database) -> None:
    """As a pooler does that gives a session to another client."""

    def read(session: Session) -> int:
        return int(session.execute(text("SELECT 40 + :more"), {"more": 2}).scalar_one())

    for _ in range(10):
        hasty.run(read)
    with hasty.engine.connect() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    assert hasty.run(read) == 42


def test_a_session_that_may_only_read_is_left_for_a_new_one(hasty: Database, counters: Callable[[], list[int]]) -> None:
    """As one with a server that is no longer the primary; the address leads to the new one."""
    with hasty.engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
    hasty.run(add_one)
    assert counters() == [1, 0]


def test_a_frozen_server_is_waited_for_once_and_then_told_at_once(hasty: Database, postgres_url: str) -> None:
    def ping() -> BaseException | None:
        try:
            with hasty.transaction() as session:
                session.execute(text("SELECT 1"))
        except (DBAPIError, PoolTimeout) as error:
            return error
        return None

    assert ping() is None
    with frozen(postgres_url):
        with ThreadPoolExecutor(40) as threads:  # more than the pool has connections
            errors = [each.result() for each in [threads.submit(ping) for _ in range(40)]]
        assert {meaning_of(error) if error else None for error in errors} == {Meaning.AWAY}
        later = ping()
        assert isinstance(later, PoolTimeout)
        assert "did not answer just now" in str(later)
    while ping() is not None:
        pass


def test_of_several_hosts_the_one_that_takes_writes_is_used(database_url: str) -> None:
    address = database_url.replace("host=", "host=%2Fnowhere,") + "&port=5432,5432&target_session_attrs=read-write"
    with closing(Database(address)) as opened:
        opened.run(lambda session: session.execute(text("SELECT 1")))


@pytest.mark.parametrize("address", ["postgresql:/host/name", "mysql://host/name", "postgresql://host/name?colour=blue"])
def test_an_address_that_is_none_is_told_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="must be a PostgreSQL address"):
        Database(address)


def test_a_statement_that_takes_too_long_is_ended_by_the_server_and_the_connection_stays(hasty: Database) -> None:
    with hasty.transaction() as session:
        own = session.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(DBAPIError) as caught, hasty.transaction() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    assert (caught.value.orig.sqlstate, meaning_of(caught.value)) == ("57014", Meaning.AWAY)  # type: ignore[union-attr]
    with hasty.transaction() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) == own


def test_no_room_for_a_statement_is_the_database_being_away(hasty: Database) -> None:
    with hasty.transaction() as session:
        session.execute(text("SET LOCAL temp_file_limit = '64kB'"))
        session.execute(text("SET LOCAL work_mem = '64kB'"))
        sort = text("SELECT * FROM generate_series(1, 50000) AS row ORDER BY -row LIMIT 1 OFFSET 49000")
        with pytest.raises(DBAPIError) as caught:
            session.execute(sort)
        session.rollback()
    assert meaning_of(caught.value) is Meaning.AWAY


def test_too_many_connections_is_the_database_being_away(database_url: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("CREATE ROLE guest LOGIN CONNECTION LIMIT 1")
        name = database_url.partition("?")[0].rpartition("/")[2]
        address = on_database(postgres_url, name).replace("postgres@", "guest@")
        with psycopg.connect(address), closing(Database(address)) as second, pytest.raises(DBAPIError) as caught:
            second.run(lambda session: session.execute(text("SELECT 1")))
        assert "too many connections" in str(caught.value)
        assert meaning_of(caught.value) is Meaning.AWAY
        admin.execute("DROP ROLE guest")
