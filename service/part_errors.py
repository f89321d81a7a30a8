"""What an error of a part means: of PostgreSQL by its SQLSTATE, of a file by its errno, of Redis and of the store by its kind.

With :mod:`service.error_numbers`, this is the only place that knows; API, worker, sweep and command line ask it.
"""

import logging
import socket
from collections.abc import Iterator
from enum import StrEnum
from http import HTTPStatus

import psycopg
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.error_numbers import AWAY_NUMBERS, is_machines_number


class Meaning(StrEnum):
    """What the one who meets an error does."""

    AWAY = "away"
    """The part cannot be used now: wait and try again. Nobody is at fault: 503, and no attempt is charged."""
    RETRY = "retry"
    """The statement met another one, or a plan that has changed: once more, at once."""
    OURS = "ours"
    """A fault of this project or of its installation: 500, logged."""
    THEIRS = "theirs"
    """What the caller sent cannot be stored: 4xx."""


_AWAY_STATES = ("08", "53", "58", "57P", "57014", "25006", "25P03", "25P04", "55P03", "40003")
"""Connections; resources; the system; shutdown; a statement that took too long; read-only; a transaction and a lock that did;
a commit of which nobody knows whether it happened, so that nothing may be done again at once."""
_RETRY_STATES = ("40", "0A000", "26000", "42P05", "72000")
"""Serialisation and deadlock; a cached plan; prepared statements that a pooler gave to another connection; an old snapshot."""
_THEIR_STATES = ("22", "23")
"""Values, constraints."""
_SESSION_STATES = ("25006", "0A000", "26000", "42P05")
"""What a new session does better: on the server that may be written now, or with plans of its own."""
_OTHER_SCHEMA_STATES = ("42P01", "42703", "42883")
"""No such table, column or function."""
_AWAY_REPLIES = ("MISCONF", "NOREPLICAS", "UNBLOCKED", "BUSY ")
"""What Redis says when it can be used later, beside what redis-py has a class for."""
_BUCKET_LIBRARIES = frozenset({"botocore", "aiobotocore", "aiohttp"})
_BUCKET_AWAY = frozenset({"HTTPClientError", "ConnectionError", "ClientConnectionError", "ClientPayloadError"})
"""Their classes by name, because they are an extra: a request that got no whole answer."""


class HostDiskFull(Exception):
    """This host's own disk takes no file: another host may have room, so nobody waits here."""


class PartAway(OSError):
    """A part cannot be used now, found by this project itself; the message says which, and why."""


def meaning_of(error: BaseException) -> Meaning:
    """Tells what an error of a part, or one that it caused, means. What no part is known to raise is ours."""
    return next((meaning for each in _causes(error) if (meaning := _of_one(each)) is not None), Meaning.OURS)


def part_of(error: BaseException) -> str:
    """The part that an error is of, in words."""
    causes = list(_causes(error))
    if any(isinstance(each, SQLAlchemyError | psycopg.Error) for each in causes):
        return "the database"
    return "Redis" if any(isinstance(each, RedisError) for each in causes) else "the store"


def is_passing(error: BaseException) -> bool:
    """Whether the same may succeed later without anybody's doing."""
    return meaning_of(error) in {Meaning.AWAY, Meaning.RETRY}


def is_of_other_schema(error: BaseException) -> bool:
    """Whether the database lacks what this version names, or has not any more what an older one does."""
    states = (getattr(each, "sqlstate", None) for one in _causes(error) for each in (one, getattr(one, "orig", None)))
    return any(state in _OTHER_SCHEMA_STATES for state in states)


def is_of_machine(error: BaseException, *, names_no_file_of_jobs: bool = False) -> bool:
    """Whether a machine or a part did it, so that no attempt is charged for it.

    In a trainer a number of the operating system's may be about a file that its job names: then it is the job's own.
    """
    return any(_is_of_machine(each, names_no_file_of_jobs) for each in _causes(error))


def log_failure(logger: logging.Logger, what: str, error: Exception) -> None:
    """Logs what failed: in a line if it passes by itself or with ``stillhouse migrate``, or else with its traceback."""
    if is_of_other_schema(error):
        logger.warning("%s, the database has another schema (run stillhouse migrate): %s", what, error)
    elif is_passing(error):
        logger.warning("%s, %s does not answer: %s", what, part_of(error), error)
    else:
        logger.error("%s", what, exc_info=error)


def ends_session(error: BaseException) -> bool:
    """Whether the same statement may succeed in a new session of the database, so that this one is to be closed."""
    return getattr(error, "sqlstate", None) in _SESSION_STATES


def _of_one(error: BaseException) -> Meaning | None:
    match error:
        case PoolTimeout() | DisconnectionError() | PartAway():
            return Meaning.AWAY
        case DBAPIError() | psycopg.Error():
            return _of_database(error)
        case AuthenticationError() | AuthorizationError():
            return Meaning.OURS
        case (
            RedisConnectionError() | RedisTimeout() | ReadOnlyError() | OutOfMemoryError() | ClusterDownError() | TryAgainError()
        ):
            return Meaning.AWAY
        case RedisError():
            return Meaning.AWAY if str(error).startswith(_AWAY_REPLIES) else Meaning.OURS
        case socket.gaierror():
            return Meaning.AWAY
        case OSError() if error.errno is not None:
            return Meaning.AWAY if error.errno in AWAY_NUMBERS else Meaning.OURS
        case ConnectionError() | TimeoutError():
            return Meaning.AWAY
    return Meaning.AWAY if _is_bucket_away(error) else None


def _is_of_machine(error: BaseException, names_no_file_of_jobs: bool) -> bool:
    match error:
        case OSError() if error.errno is not None and not isinstance(error, socket.gaierror):
            return names_no_file_of_jobs or is_machines_number(error.errno)
        case SQLAlchemyError() | psycopg.Error() | RedisError():
            return _of_one(error) is not Meaning.THEIRS
    return _of_one(error) is Meaning.AWAY


def _of_database(error: DBAPIError | psycopg.Error) -> Meaning:
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if state is None:
        return _of_driver(error)
    for meaning, states in (
        (Meaning.AWAY, _AWAY_STATES),
        (Meaning.RETRY, _RETRY_STATES),
        (Meaning.THEIRS, _THEIR_STATES),
    ):
        if state.startswith(states):
            return meaning
    return Meaning.OURS


def _of_driver(error: DBAPIError | psycopg.Error) -> Meaning:
    """Of what the server never saw, or never answered."""
    match error:
        case OperationalError() | InterfaceError() | psycopg.OperationalError() | psycopg.InterfaceError():
            return Meaning.AWAY
        case DataError() | psycopg.DataError():
            return Meaning.THEIRS
    return Meaning.AWAY if isinstance(error, DBAPIError) and error.connection_invalidated else Meaning.OURS


def _is_bucket_away(error: BaseException) -> bool:
    own = {each.__name__ for each in type(error).__mro__ if each.__module__.partition(".")[0] in _BUCKET_LIBRARIES}
    response = getattr(error, "response", None) if own else None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(response, dict) else 0
    return bool(own & _BUCKET_AWAY) or status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what is in it if it is a group, and what each was raised from."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [each.__cause__] if each.__cause__ is not None else []
