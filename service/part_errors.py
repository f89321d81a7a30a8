"""What an error of a part means: of PostgreSQL by its SQLSTATE, of a file by its errno, of Redis and of the store by its kind.

This is the only place that knows; API, worker, sweep and command line ask it.
"""

import errno
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
FULL_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Of a disk that takes no file."""
_AWAY_NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ETIMEDOUT", "ETIME", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ESHUTDOWN"),
        *("EREMOTEIO", "EBUSY", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ENOLCK"),
    )
    if hasattr(errno, name)
)
"""The disk; the network and what is mounted over it; this machine's own limits."""
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
            return Meaning.AWAY if error.errno in _AWAY_NUMBERS else Meaning.OURS
        case ConnectionError() | TimeoutError():
            return Meaning.AWAY
    return Meaning.AWAY if _is_bucket_away(error) else None


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
