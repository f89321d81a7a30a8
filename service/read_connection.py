"""One asynchronous connection to PostgreSQL for statements that only read, each a transaction of its own.

It keeps the promises of :mod:`service.database_engine`: no wait is without a limit, and a pooler is noticed.
"""

from typing import Any, NamedTuple

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row, tuple_row

from service.database_engine import CONNECT_SECONDS, DEAD_CONNECTION, Silence, session_settings, set_locally, set_up
from service.part_errors import Meaning, meaning_of


class ReadConnection:
    """Opened with the first statement, and again after it was lost. One statement runs at a time."""

    def __init__(self, url: str, *, silence: Silence) -> None:
        """``silence`` is shared with the other connections of the process."""
        self._url = make_conninfo(url, connect_timeout=CONNECT_SECONDS, **DEAD_CONNECTION)
        self._silence = silence
        self._settings = session_settings(silence.answer_seconds)
        self._connection: _LimitedConnection | None = None
        self.num_openings = 0
        """Another one may be to another server, which lacks what a fail-over lost."""

    async def fetch(self, statement: str, parameters: dict[str, Any], *, prepare: bool | None = None) -> list[Any]:
        """Reads the rows. What a connection that was lost meanwhile, or a changed plan, prevented is tried once more.

        ``prepare`` is False for a statement whose best plan depends on its parameters.
        """
        known = self._connection
        try:
            return await self._fetch(statement, parameters, prepare)
        except psycopg.Error as error:
            is_lost = known is not None and known.closed
            await self.aclose()
            if not is_lost and meaning_of(error) is not Meaning.RETRY:
                raise
        return await self._fetch(statement, parameters, prepare)

    async def aclose(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _fetch(self, statement: str, parameters: dict[str, Any], prepare: bool | None) -> list[Any]:
        self._silence.pass_or_raise()
        if self._connection is None:
            self._connection = await _LimitedConnection.open(self._url, self._silence, self._settings)
            self.num_openings += 1
        if self._connection.is_pooled:
            # In one trip and one transaction, to whichever session it goes.
            cursor = psycopg.AsyncClientCursor(self._connection)
            await cursor.execute(f"{set_locally(self._settings)}; {statement}".encode(), parameters)
            while cursor.nextset():
                pass
            return await cursor.fetchall()
        return await (await self._connection.execute(statement.encode(), parameters, prepare=prepare)).fetchall()


class _LimitedConnection(psycopg.AsyncConnection[NamedTuple]):
    """As the synchronous one, see :class:`service.database_engine.LimitedConnection`."""

    silence: Silence
    is_pooled: bool

    @classmethod
    async def open(cls, url: str, silence: Silence, settings: dict[str, str]) -> "_LimitedConnection":
        with silence.connecting():
            connection = await cls.connect(url, autocommit=True, prepare_threshold=0, row_factory=namedtuple_row)
        connection.silence = silence
        try:
            cursor = connection.cursor(row_factory=tuple_row)
            row = await (await cursor.execute(set_up(connection.info, settings), prepare=False)).fetchone()
        except BaseException:
            await connection.close()
            raise
        assert row is not None
        connection.is_pooled = row[0]
        return connection

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        with self.silence.noted(self.pgconn):
            return await super().wait(gen, interval, self.silence.answer_seconds)
