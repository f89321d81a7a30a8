"""The commands of a deployment on a database that is not as they need it: what is wrong is one sentence."""

import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from tests.integration.conftest import on_database


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield on_database(postgres_url, name)
        connection.execute(f"DROP DATABASE {name}".encode())


def sentence(command: str, database_url: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", command],
        capture_output=True,
        text=True,
        env=os.environ | {"DATABASE_URL": database_url, "COLUMNS": "300"} | environment,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_a_key_for_a_database_that_nobody_migrated(empty_database: str) -> None:
    code, line = sentence("admin-key", empty_database)
    assert code == 2
    assert "run stillhouse migrate" in line


def test_a_migration_of_a_database_that_a_newer_version_has_migrated(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    code, line = sentence("migrate", empty_database)
    assert code == 2
    assert "migrated by another version of Stillhouse: Can't locate revision identified by '9999'" in line


def test_a_migration_goes_to_the_server_itself_where_another_address_is_given_for_it(empty_database: str) -> None:
    code, line = sentence("migrate", "postgresql://nobody@127.0.0.1:1/jobs", DATABASE_DIRECT_URL=empty_database)
    assert (code, line) == (0, "the database is up to date")


def test_a_migration_of_a_database_that_takes_no_writes(empty_database: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = empty_database.partition("?")[0].rpartition("/")[2]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    code, line = sentence("migrate", empty_database)
    assert code == 3
    assert "read-only transaction" in line
