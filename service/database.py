"""The engine, transactions and migrations. A session is one transaction; notifications of changed jobs follow it."""

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

import migrations
from service.clock import Clock
from service.clock import info as clock_info
from service.part_errors import Meaning, meaning_of
from service.queue_policy import QueuePolicy
from service.queue_policy import info as queue_policy_info

_DEAD_CONNECTION = {
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""A network that drops packets is an error within 20 s; the kernel alone would wait for a quarter of an hour."""
T = TypeVar("T")
Notify = Callable[[Set[str]], None]
"""Receives the ids of the jobs that a committed transaction changed."""


class Database:
    """One engine a process, on a ``postgresql://`` address.

    A connection that cannot be had within 5 s is an error, never a hang.
    """

    def __init__(
        self,
        url: str,
        *,
        notify: Notify | None = None,
        pool_size: int = 10,
        clock: Clock | None = None,
        queue_policy: QueuePolicy | None = None,
    ) -> None:
        """``clock`` replaces the database's own; ``notify`` is called with the ids of the jobs that a transaction changed."""
        self.engine = create_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=20,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 5,
                "options": "-c timezone=utc -c lock_timeout=20s -c statement_timeout=60s",
                **_DEAD_CONNECTION,
            },
        )
        self._notify = notify
        self._info = clock_info(clock) | queue_policy_info(queue_policy or QueuePolicy())

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by an exception. Its rows stay readable afterwards."""
        with Session(self.engine, expire_on_commit=False, info=dict(self._info)) as session:
            with session.begin():
                yield session
            changed = session.info.get("changed_jobs")
        if changed and self._notify is not None:
            self._notify(changed)

    def run(self, work: Callable[[Session], T]) -> T:
        """Runs ``work`` in one transaction; a second time if the first met what passes by itself, as a changed plan."""
        try:
            with self.transaction() as session:
                return work(session)
        except SQLAlchemyError as error:
            if meaning_of(error) is not Meaning.RETRY:
                raise
        with self.transaction() as session:
            return work(session)

    def ping(self) -> None:
        """Raises SQLAlchemy's OperationalError when the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


def driver_url(url: str) -> str:
    """Names the driver in a plain ``postgresql://`` address."""
    scheme, separator, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not separator:
        raise ValueError("DATABASE_URL must be a PostgreSQL address: postgresql://user:password@host:5432/name")
    return f"postgresql+psycopg://{rest}"


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the schema up to ``revision``; harmless to repeat, and two at once wait for each other."""
    command.upgrade(_alembic(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Reverts the schema to ``revision``."""
    command.downgrade(_alembic(url), revision)


def _alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = driver_url(url)
    return config


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
