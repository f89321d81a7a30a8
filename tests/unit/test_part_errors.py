"""What an error of a part means to the one who meets it."""

import errno
import socket

import psycopg
import pytest
from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.part_errors import Meaning, PartAway, ends_session, meaning_of


def of_database(state: str) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, psycopg.errors.lookup(state)("refused"))


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("25006", Meaning.AWAY),  # read-only: a fail-over
        ("57P01", Meaning.AWAY),
        ("53100", Meaning.AWAY),  # the disk is full
        ("08006", Meaning.AWAY),
        ("57014", Meaning.AWAY),  # a statement took longer than it may
        ("40003", Meaning.AWAY),  # nobody knows whether it was committed, so it is not done again
        ("0A000", Meaning.RETRY),  # cached plan must not change result type
        ("40001", Meaning.RETRY),
        ("40P01", Meaning.RETRY),
        ("22003", Meaning.THEIRS),
        ("23505", Meaning.THEIRS),
        ("42P01", Meaning.OURS),
    ],
)
def test_an_error_of_postgresql_means_what_its_sqlstate_says(state: str, meaning: Meaning) -> None:
    assert meaning_of(of_database(state)) is meaning


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (OperationalError("SELECT 1", {}, psycopg.OperationalError("connection refused")), Meaning.AWAY),
        (PoolTimeout("no connection is free"), Meaning.AWAY),
        (OSError(errno.ENOSPC, "no space"), Meaning.AWAY),
        (OSError(errno.EDQUOT, "quota"), Meaning.AWAY),
        (OSError(errno.EROFS, "read-only"), Meaning.AWAY),
        (FileNotFoundError(errno.ENOENT, "gone"), Meaning.OURS),
        (PartAway("the store is another one"), Meaning.AWAY),
        (RedisConnectionError("refused"), Meaning.AWAY),
        (ReadOnlyError("You can't write against a read only replica."), Meaning.AWAY),
        (ResponseError("WRONGTYPE Operation against a key"), Meaning.OURS),
        (ResponseError("BUSY Redis is busy running a script"), Meaning.AWAY),
        (ResponseError("BUSYKEY Target key name already exists"), Meaning.OURS),
        (ZeroDivisionError(), Meaning.OURS),
        (DataError("SELECT 1", {}, psycopg.DataError("cannot contain NUL")), Meaning.THEIRS),  # the driver refused it
        (socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"), Meaning.AWAY),
        (OSError(errno.EBUSY, "slow down"), Meaning.AWAY),
        (ConnectionResetError(), Meaning.AWAY),
        (TimeoutError(), Meaning.AWAY),
        (AuthenticationError("wrong password"), Meaning.OURS),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'"), Meaning.AWAY),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots, but is unable to"), Meaning.AWAY),
        (ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), Meaning.AWAY),
    ],
)
def test_an_error_means_what_its_kind_says(error: Exception, meaning: Meaning) -> None:
    assert meaning_of(error) is meaning


def test_an_error_means_what_its_cause_does() -> None:
    error = RuntimeError("could not read")
    error.__cause__ = OSError(errno.ESTALE, "stale")
    assert meaning_of(error) is Meaning.AWAY
    group = ExceptionGroup("both", [ValueError("of no part"), error])
    assert meaning_of(group) is Meaning.AWAY
    error.__cause__ = error
    assert meaning_of(error) is Meaning.OURS


def test_a_session_ends_where_another_may_do_better() -> None:
    assert ends_session(psycopg.errors.lookup("25006")("read-only"))
    assert ends_session(psycopg.errors.lookup("0A000")("cached plan must not change result type"))
    assert not ends_session(psycopg.errors.lookup("40P01")("deadlock"))
    assert not ends_session(psycopg.OperationalError("connection refused"))
