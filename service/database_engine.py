"""Connections to PostgreSQL: none waits without a limit, a dead one is replaced before it is used, a pooler is noticed.

A frozen server keeps its sockets open, so neither the kernel nor libpq ever ends a wait for it. Here every wait has a limit,
and once one was reached, one caller at a time tries the server while the others are told at once: see :class:`Silence`.

Behind a pooler (PgBouncer) a session may be another's in the next transaction. So whatever a session remembers is used only
where the process that answers is the one that was connected to: prepared statements, and settings beyond a transaction.
"""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.part_errors import ends_session

CONNECT_SECONDS = 3
_UNSURE_AFTER_SECONDS = 5.0
"""A connection that nobody used for so long is tried before it is given out."""
_SILENCE_SECONDS = 1.0
_IDLE_IN_TRANSACTION_SECONDS = 20.0
"""Then, or after two answers' time, the server ends the transaction of a process that has stopped, which would keep its locks."""
DEAD_CONNECTION = {"tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2}
"""A network that drops packets is an error within 20 s also where a statement may take longer, as in a migration."""
_MAX_OVERFLOW = 20


class Silence:
    """Whether the server has fallen silent. While it is, one thread at a time may try it; the others would each wait in vain."""

    def __init__(self, answer_seconds: float) -> None:
        self.answer_seconds = answer_seconds
        """How long any answer may take."""
        self._until = 0.0
        self._trying: int | None = None
        self._lock = threading.Lock()

    def pass_or_raise(self) -> None:
        """Returns if the server may be asked.

        Raises:
            PoolTimeout: it has not answered, and less than a second ago, or another thread is trying it.
        """
        if not self._until:
            return
        with self._lock:
            now, caller = time.monotonic(), threading.get_ident()
            if now < self._until and self._trying != caller:
                raise PoolTimeout("the database did not answer just now")
            self._trying = caller
            self._until = now + self.answer_seconds

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Notes how an attempt to connect fails: without an answer in time, or with one."""
        try:
            yield
        except psycopg.errors.ConnectionTimeout:
            self.begin()
            raise
        except psycopg.Error:
            self.end()
            raise

    def begin(self) -> None:
        """Notes that a wait reached its limit."""
        with self._lock:
            self._until, self._trying = time.monotonic() + _SILENCE_SECONDS, None

    def end(self) -> None:
        """Notes that there was an answer, of whatever kind."""
        if self._until:
            with self._lock:
                self._until, self._trying = 0.0, None

    @contextmanager
    def noted(self, connection: PGconn) -> Iterator[None]:
        """Around a wait of at most ``answer_seconds``: notes what came of it, and closes the connection when they have passed."""
        try:
            yield
        except psycopg.OperationalError as error:
            if connection.transaction_status != TransactionStatus.ACTIVE:
                self.end()
                raise
            # The limit was reached while a statement was under way, so nothing can be done on this connection any more.
            connection.finish()
            self.begin()
            raise psycopg.OperationalError(f"the database did not answer within {self.answer_seconds:g} s") from error
        self.end()


class LimitedConnection(psycopg.Connection[tuple[Any, ...]]):
    """Waits for no answer longer than its ``silence`` says, and is closed then."""

    silence: Silence
    is_pooled: bool
    """Whether a pooler stands between, and this session may be another's in the next transaction."""
    used_at: float

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        with self.silence.noted(self.pgconn):
            return super().wait(gen, interval, self.silence.answer_seconds)

    @property
    def may_be_dead(self) -> bool:
        """Whether it was long unused, or something came that nobody asked for, as the news of its end."""
        if time.monotonic() - self.used_at > _UNSURE_AFTER_SECONDS:
            return True
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))


def make_engine(url: str, *, pool_size: int, silence: Silence) -> Engine:
    """Creates the engine. ``url`` is libpq's, which alone reads it."""
    engine = create_engine(
        "postgresql+psycopg://",
        pool_size=pool_size,
        max_overflow=_MAX_OVERFLOW,
        pool_timeout=silence.answer_seconds,
        pool_use_lifo=True,  # few connections are in use at a time, so they stay warm
        use_native_hstore=False,
        connect_args={"connect_timeout": CONNECT_SECONDS, **DEAD_CONNECTION},
    )
    settings = session_settings(silence.answer_seconds)

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, _arguments: object, named: dict[str, Any]) -> LimitedConnection:
        silence.pass_or_raise()
        with silence.connecting():
            connection = LimitedConnection.connect(url, **named)
        connection.silence = silence
        try:
            _set_up(connection, settings)
        except BaseException:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "checkout")
    def checkout(connection: LimitedConnection, _record: object, _proxy: object) -> None:
        if not connection.may_be_dead:
            return
        try:
            connection.autocommit = True
            connection.execute(";")
            connection.autocommit = False
        except psycopg.Error as error:
            raise InvalidatePoolError(str(error)) from error

    @event.listens_for(engine, "checkin")
    def checkin(connection: LimitedConnection | None, _record: object) -> None:
        if connection is not None:
            connection.used_at = time.monotonic()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        session = connection.connection.driver_connection
        assert isinstance(session, LimitedConnection)
        if session.is_pooled and not session.autocommit:
            connection.exec_driver_sql(set_locally(settings))

    @event.listens_for(engine, "handle_error")
    def replace(context: ExceptionContext) -> None:
        if ends_session(context.original_exception):
            context.is_disconnect = True

    return engine


def session_settings(answer_seconds: float) -> dict[str, str]:
    """The server gives up before the client does, so that its answer says why, and the connection stays."""
    return {
        "timezone": "utc",
        "statement_timeout": f"{answer_seconds * 800:.0f}ms",
        "idle_in_transaction_session_timeout": f"{max(_IDLE_IN_TRANSACTION_SECONDS, 2 * answer_seconds):.0f}s",
    }


def set_up(connection: psycopg.ConnectionInfo, settings: dict[str, str]) -> bytes:
    """The first statement of a connection. Its first column: whether a pooler answers; else the settings hold from now on."""
    own = connection.backend_pid
    calls = ", ".join(f"set_config('{name}', '{value}', pg_backend_pid() <> {own})" for name, value in settings.items())
    return f"SELECT pg_backend_pid() <> {own}, {calls}".encode()


def set_locally(settings: dict[str, str]) -> str:
    """The statements that make the settings hold to the end of a transaction."""
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())


def _set_up(connection: LimitedConnection, settings: dict[str, str]) -> None:
    connection.autocommit = True
    row = connection.execute(set_up(connection.info, settings)).fetchone()
    connection.autocommit = False
    assert row is not None
    connection.is_pooled = row[0]
    connection.used_at = time.monotonic()
    if connection.is_pooled:
        connection.prepare_threshold = None
