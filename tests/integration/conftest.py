"""Real servers for the tests: one PostgreSQL and one Valkey a session, a database of its own for each test module; and texts.

A module's database is a copy of a migrated template; ``database`` empties its tables before each test that asks for it.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest

from service.broker import Broker
from service.database import Database, upgrade
from service.embedded.servers import Valkey, postgres, valkey
from service.notifications import Notifier
from service.store import Store
from service.tables import Table
from tests.conftest import own_folder, reserved_port
from tests.integration.feelings import write_texts

_TEMPLATE = "stillhouse_template"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server's own database."""
    with own_folder() as folder, postgres(folder) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nothing here must outlive a crash
            _execute(server.url, f"ALTER SYSTEM SET {setting} = off")
        _execute(server.url, "SELECT pg_reload_conf()")
        yield server.url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    """The name of a migrated database without a row."""
    _execute(postgres_url, f"CREATE DATABASE {_TEMPLATE}")
    upgrade(on_database(postgres_url, _TEMPLATE))
    return _TEMPLATE


@pytest.fixture(scope="module")
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database of this module's own."""
    name = f"test_{uuid4().hex}"
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield on_database(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey server; a test that stops it starts it again."""
    with reserved_port() as port, valkey(tmp_path_factory.mktemp("valkey"), port=port) as server:
        yield server


@pytest.fixture
def database(database_url: str, valkey_server: Valkey) -> Iterator[Database]:
    """The module's database without a row; what it commits is published."""
    with closing(Notifier(valkey_server.url)) as notifier, closing(Database(database_url, notify=notifier)) as opened:
        empty(opened)
        yield opened


@pytest.fixture
def broker(valkey_server: Valkey) -> Iterator[Broker]:
    """Sends wake-ups to the session's Valkey."""
    with closing(Broker(valkey_server.url)) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(f"file://{tmp_path}/store")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of three feelings."""
    return write_texts(tmp_path_factory.mktemp("texts") / "feelings.jsonl")


def empty(database: Database) -> None:
    """Removes every row, of what needs others first. Not by TRUNCATE: it locks whole tables, and a sweep may be reading them."""
    with database.engine.begin() as connection:
        for table in reversed(Table.metadata.sorted_tables):
            connection.execute(table.delete())


def on_database(url: str, name: str) -> str:
    """The same server's address with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
