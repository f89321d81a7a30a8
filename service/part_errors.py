"""What an error of a part means: of PostgreSQL by its SQLSTATE, of a file by its errno, of Redis and of the store by its kind.

This is the only place that knows; API, worker, sweep and command line ask it.
"""

import errno
from collections.abc import Iterator
from enum import StrEnum

from redis.exceptions import BusyLoadingError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
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


_AWAY_STATES = ("08", "53", "58", "57P", "57014", "25006", "25P03", "55P03")
"""Connections; resources; the system; shutdown; a statement that took too long; read-only; a transaction, a lock that did."""
_RETRY_STATES = ("40", "0A000", "26000", "42P05")
"""Serialisation and deadlock; a cached plan; prepared statements that a pooler gave to another connection."""
_THEIR_STATES = ("22", "23")
"""Values, constraints."""
_AWAY_NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "EAGAIN", "EMFILE", "ENFILE"),
    )
    if hasattr(errno, name)
)


class PartAway(OSError):
    """A part cannot be used now, found by this project itself; the message says which, and why."""


def meaning_of(error: BaseException) -> Meaning:
    """Tells what an error of a part, or one that it caused, means. What no part is known to raise is ours."""
    return next((meaning for each in _causes(error) if (meaning := _of_one(each)) is not None), Meaning.OURS)


def _of_one(error: BaseException) -> Meaning | None:
    match error:
        case PoolTimeout() | DisconnectionError() | PartAway():
            return Meaning.AWAY
        case DBAPIError():
            return _of_database(error)
        case RedisConnectionError() | RedisTimeout() | BusyLoadingError() | ReadOnlyError():
            return Meaning.AWAY
        case RedisError():
            return Meaning.OURS
        case OSError() if error.errno is not None:
            return Meaning.AWAY if error.errno in _AWAY_NUMBERS else Meaning.OURS
        case ConnectionError() | TimeoutError():
            return Meaning.AWAY
    return None


def _of_database(error: DBAPIError) -> Meaning:
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        is_lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return Meaning.AWAY if is_lost else Meaning.OURS
    for meaning, states in (
        (Meaning.AWAY, _AWAY_STATES),
        (Meaning.RETRY, _RETRY_STATES),
        (Meaning.THEIRS, _THEIR_STATES),
    ):
        if state.startswith(states):
            return meaning
    return Meaning.OURS


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    while id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error
