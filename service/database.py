"""The engine, transactions and migrations. A session is one transaction; notifications of what it changed follow it."""

from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

import migrations
from service.capacity import info as capacity_info
from service.clock import Clock
from service.clock import info as clock_info
from service.database_engine import Silence, make_engine
from service.part_errors import Meaning, meaning_of
from service.queue_policy import QueuePolicy
from service.queue_policy import info as queue_policy_info
from service.read_connection import ReadConnection

if TYPE_CHECKING:
    from alembic.config import Config  # imported where the schema is changed: no server waits for it at its start

ANSWER_SECONDS = 5.0
_MIGRATION_SECONDS = 3600.0
T = TypeVar("T")
Notify = Callable[[Set[str]], None]
"""Receives the ids of what a committed transaction changed: jobs, and keys that it revoked."""


class Database:
    """One engine a process, on a ``postgresql://`` address. No call of it hangs: see :mod:`service.database_engine`."""

    def __init__(
        self,
        url: str,
        *,
        notify: Notify | None = None,
        pool_size: int = 10,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Clock | None = None,
        queue_policy: QueuePolicy | None = None,
    ) -> None:
        """``clock`` replaces the database's own; ``notify`` is called with the ids of what a transaction changed.

        ``answer_seconds``: how long a statement may take, a connection may be waited for and the server may be silent.
        """
        self._url = checked_url(url)
        self._silence = Silence(answer_seconds)
        self.engine = make_engine(self._url, pool_size=pool_size, silence=self._silence)
        self._notify = notify
        self._info = clock_info(clock) | queue_policy_info(queue_policy or QueuePolicy()) | capacity_info(clock)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by an exception. Its rows stay readable afterwards."""
        self._silence.pass_or_raise()
        with Session(self.engine, expire_on_commit=False, info=dict(self._info)) as session:
            with session.begin():
                yield session
            changed = session.info.get("changed")
        if changed and self._notify is not None:
            self._notify(changed)

    def run(self, work: Callable[[Session], T]) -> T:
        """Runs ``work`` in one transaction; a second time if the first met what passes by itself and was not committed.

        That is a changed plan, a deadlock, or a connection that was lost before COMMIT was sent on it. Of one that is lost later
        nobody knows whether it was committed.
        """
        sent = False

        def committed() -> T:
            nonlocal sent
            with self.transaction() as session:
                result = work(session)
                session.flush()
                sent = True
            return result

        try:
            return committed()
        except DBAPIError as error:
            if meaning_of(error) is not Meaning.RETRY and (sent or not error.connection_invalidated):
                raise
        return committed()

    def read_connection(self) -> ReadConnection:
        """A connection of its own for an event loop, which opens it when it reads and has to close it."""
        return ReadConnection(self._url, silence=self._silence)

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


def checked_url(url: str) -> str:
    """Returns an address as libpq takes it, several hosts included. Raises ValueError if it is none."""
    scheme, separator, rest = url.partition("://")
    address = f"postgresql://{rest}"
    if scheme in {"postgresql", "postgres", "postgresql+psycopg"} and separator:
        with suppress(psycopg.ProgrammingError):
            conninfo_to_dict(address)
            return address
    raise ValueError("DATABASE_URL must be a PostgreSQL address: postgresql://user:password@host:5432/name")


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the schema up to ``revision``; harmless to repeat, and two at once wait for each other."""
    from alembic import command

    with _alembic(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Reverts the schema to ``revision``."""
    from alembic import command

    with _alembic(url) as config:
        command.downgrade(config, revision)


@contextmanager
def _alembic(url: str) -> Iterator["Config"]:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    with closing(Database(url, pool_size=1, answer_seconds=_MIGRATION_SECONDS)) as database:
        config.attributes["engine"] = database.engine
        yield config


def loose_index_scan(column: str, where: str) -> str:
    """SQL for the distinct values of a column of the jobs, as a recursive table ``scan`` of that one column.

    Each value costs one search in an index that begins with the column, however many rows have it.
    (PostgreSQL wiki: Loose indexscan.)
    """
    return f"""
WITH RECURSIVE scan AS (
    (SELECT {column} FROM jobs WHERE {where} ORDER BY {column} LIMIT 1)
    UNION ALL
    SELECT following.{column} FROM scan CROSS JOIN LATERAL (
        SELECT {column} FROM jobs WHERE {where} AND {column} > scan.{column} ORDER BY {column} LIMIT 1
    ) AS following
)
"""  # noqa: S608 - what is put in are words of this project
