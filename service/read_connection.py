"""One asynchronous connection to PostgreSQL for statements that only read, each a transaction of its own.

It keeps the promises of :mod:`service.database_engine`: no wait is without a limit, and a pooler is noticed.
"""

from typing import Any, NamedTuple

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row, tuple_row

from service.database_engine import CONNECT_SECONDS, DEAD_CONNECTION, Silence, session_settings
from service.part_errors import Meaning, PartAway, meaning_of


class ReadConnection:
    """Opened with the first statement, and again after it was lost. One statement runs at a time."""

    def __init__(self, url: str, *, answer_seconds: float, silence: Silence) -> None:
        """``silence`` is shared with the other connections of the process."""
        self._url = make_conninfo(url, connect_timeout=CONNECT_SECONDS, **DEAD_CONNECTION)
        self._answer_seconds = answer_seconds
        self._silence = silence
        self._connection: _LimitedConnection | None = None

    async def fetch(self, statement: str, parameters: dict[str, Any], *, prepare: bool | None = None) -> list[Any]:
        """Reads the rows. What a connection that was lost meanwhile, or a changed plan, prevented is tried once more.

        ``prepare`` is False for a statement whose best plan depends on its parameters.

        Raises:
            PartAway: the database cannot be asked now, or does not answer in time.
        """
        was_open = self._connection is not None
        try:
            try:
                return await self._fetch(statement, parameters, prepare)
            except psycopg.Error as error:
                meaning = meaning_of(error)
                await self.aclose()
                if meaning is not Meaning.RETRY and not (meaning is Meaning.AWAY and was_open):
                    raise
            return await self._fetch(statement, parameters, prepare)
        except psycopg.Error as error:
            if meaning_of(error) in {Meaning.AWAY, Meaning.RETRY}:
                raise PartAway("the database does not answer") from error
            raise

    async def aclose(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _fetch(self, statement: str, parameters: dict[str, Any], prepare: bool | None) -> list[Any]:
        self._silence.pass_or_raise()
        if self._connection is None:
            self._connection = await _LimitedConnection.open(self._url, self._answer_seconds, self._silence)
        cursor = await self._connection.execute(statement.encode(), parameters, prepare=prepare)
        return await cursor.fetchall()


class _LimitedConnection(psycopg.AsyncConnection[NamedTuple]):
    """Waits at most ``answer_seconds`` for any answer, and is closed when they have passed."""

    answer_seconds: float
    silence: Silence

    @classmethod
    async def open(cls, url: str, answer_seconds: float, silence: Silence) -> "_LimitedConnection":
        """Connects, and finds out whether a pooler stands between: then a session may be another's in the next transaction."""
        try:
            connection = await cls.connect(url, autocommit=True, row_factory=namedtuple_row)
        except psycopg.errors.ConnectionTimeout as error:
            silence.begin()
            raise PartAway("the database does not answer") from error
        connection.answer_seconds, connection.silence = answer_seconds, silence
        try:
            await connection._set_up(session_settings(answer_seconds))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _set_up(self, settings: dict[str, str]) -> None:
        own = self.info.backend_pid
        calls = ", ".join(f"set_config('{name}', '{value}', pg_backend_pid() <> {own})" for name, value in settings.items())
        cursor = await self.cursor(row_factory=tuple_row).execute(f"SELECT pg_backend_pid() <> {own}, {calls}".encode())
        row = await cursor.fetchone()
        assert row is not None
        self.prepare_threshold = None if row[0] else 0

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            answer = await super().wait(gen, interval, self.answer_seconds)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                self.silence.end()
                raise
            # The limit was reached while a statement was under way, so nothing can be done on this connection any more.
            self.pgconn.finish()
            self.silence.begin()
            raise PartAway(f"the database did not answer within {self.answer_seconds:g} s") from error
        self.silence.end()
        return answer
