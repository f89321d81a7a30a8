"""What an error of a part means to the one who meets it."""

import errno
import socket

import psycopg
import pytest
from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.part_errors import Meaning, PartAway, ends_session, is_of_machine, is_of_other_schema, meaning_of
from worker.sources.errors import HubAway, SourceRefused


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
        (HubAway("the Hub does not answer", "Wait."), Meaning.AWAY),
        (SourceRefused("it is gated", "Ask for it."), Meaning.OURS),
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


@pytest.mark.parametrize(
    ("error", "is_machines", "is_machines_by_its_own_files"),
    [
        (OSError(errno.EMFILE, "too many open files"), True, True),
        (OSError(errno.EFBIG, "file too large"), True, True),
        (OSError(errno.EBADF, "of no list"), True, True),
        (FileNotFoundError(errno.ENOENT, "gone"), False, True),
        (PermissionError(errno.EACCES, "denied"), False, True),
        (OSError("without a number"), False, False),
        (PartAway("the fork server has ended"), True, True),
        (HubAway("the Hub does not answer", "Wait."), True, True),
        (SourceRefused("it is gated", "Ask for it."), False, False),
        (of_database("42501"), True, True),  # what the service may not do is nothing of the job's
        (of_database("22003"), False, False),
        (ZeroDivisionError(), False, False),
    ],
)
def test_what_a_machine_or_a_part_did_is_told_from_what_a_job_did(
    error: Exception, is_machines: bool, is_machines_by_its_own_files: bool
) -> None:
    assert is_of_machine(error) is is_machines
    assert is_of_machine(error, names_no_file_of_jobs=True) is is_machines_by_its_own_files
    wrapped = ValueError("told in other words")
    wrapped.__cause__ = error
    assert is_of_machine(wrapped) is is_machines


@pytest.mark.parametrize(("state", "is_other"), [("42P01", True), ("42703", True), ("42501", False), ("42601", False)])
def test_another_schema_is_told_by_the_sqlstate_and_not_by_the_class(state: str, is_other: bool) -> None:
    assert is_of_other_schema(of_database(state)) is is_other
