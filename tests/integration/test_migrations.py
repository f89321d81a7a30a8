"""Migrations on empty databases: they make exactly the tables of ``service.tables``, forwards, backwards and at once."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

import migrations
from service.database import Database, downgrade, driver_url, upgrade
from service.lifecycle import FINAL, Status
from service.security import Role, create_key
from service.tables import Table
from tests.integration.conftest import on_database

FOLDER = Path(migrations.__file__).parent
SCRIPTS = ScriptDirectory(str(FOLDER))
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]

# Everything that a schema is made of, as PostgreSQL itself writes it.
SCHEMA = {
    "columns": """
        SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "everything else": "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "types": "SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typrelid = 0 AND typelem = 0",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
}


@pytest.fixture
def empty_url(postgres_url: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield on_database(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def empty_engine(empty_url: str) -> Iterator[Engine]:
    engine = create_engine(driver_url(empty_url))
    yield engine
    engine.dispose()


def schema(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """What is in the database, alembic's own table apart."""
    with engine.connect() as connection:
        found = {name: {tuple(row) for row in connection.execute(text(query))} for name, query in SCHEMA.items()}
    return {name: {row for row in rows if not str(row[0]).startswith("alembic_version")} for name, rows in found.items()}


def test_an_upgraded_database_is_the_tables_to_the_letter(
    postgres_url: str, empty_engine: Engine, template_database: str
) -> None:
    Table.metadata.create_all(empty_engine)
    migrated = create_engine(driver_url(on_database(postgres_url, template_database)))
    try:
        assert schema(migrated) == schema(empty_engine)
    finally:
        migrated.dispose()


def test_alembic_finds_nothing_to_generate(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []


def test_there_is_one_line_of_revisions_from_nothing_to_one_head() -> None:
    assert SCRIPTS.get_bases() == REVISIONS[:1]
    assert SCRIPTS.get_heads() == REVISIONS[-1:]
    assert len(REVISIONS) == len(list((FOLDER / "versions").glob("[!_]*.py")))


def test_each_step_back_undoes_its_step_forward_and_can_be_taken_again(empty_url: str, empty_engine: Engine) -> None:
    before = {"base": schema(empty_engine)}
    for revision in REVISIONS:
        upgrade(empty_url, revision)
        before[revision] = schema(empty_engine)
    for revision, earlier in zip(REVISIONS[::-1], [*REVISIONS[:-1][::-1], "base"], strict=True):
        downgrade(empty_url, earlier)
        assert schema(empty_engine) == before[earlier]
        upgrade(empty_url, revision)
        assert schema(empty_engine) == before[revision]
        downgrade(empty_url, earlier)


def test_back_at_the_base_nothing_is_left(empty_url: str, empty_engine: Engine) -> None:
    upgrade(empty_url)
    assert schema(empty_engine)["columns"]
    downgrade(empty_url, "base")
    assert not any(schema(empty_engine).values())


def test_an_upgrade_that_is_repeated_changes_nothing(empty_url: str, empty_engine: Engine) -> None:
    upgrade(empty_url)
    first = schema(empty_engine)
    upgrade(empty_url)
    assert schema(empty_engine) == first


def test_an_upgrade_that_fails_leaves_nothing_half_made(empty_url: str, empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE metric_points (mine int)"))  # in the way of the migration's own
    before = schema(empty_engine)
    with pytest.raises(Exception, match='"metric_points" already exists'):
        upgrade(empty_url)
    assert schema(empty_engine) == before


def test_processes_that_upgrade_at_once_wait_for_each_other(empty_url: str, empty_engine: Engine) -> None:
    command = [sys.executable, "-c", "import sys; from service.database import upgrade; upgrade(sys.argv[1])", empty_url]
    with empty_engine.connect() as holder:
        # The key by which they exclude each other: whoever holds it keeps all of them waiting.
        holder.execute(text("SELECT pg_advisory_xact_lock(7445001)"))
        upgrades = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        with closing(create_engine(driver_url(empty_url), isolation_level="AUTOCOMMIT").connect()) as watcher:
            waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 7445001")
            while watcher.scalar(waiting) != len(upgrades):
                assert all(process.poll() is None for process in upgrades), "an upgrade did not wait"
                time.sleep(0.02)
        watcher.engine.dispose()
        assert not schema(empty_engine)["columns"]
    errors = [process.communicate(timeout=120)[1] for process in upgrades]
    assert [process.returncode for process in upgrades] == [0, 0, 0], errors
    assert schema(empty_engine)["columns"]


# ---------------------------------------------------------------- what the database itself refuses

ROW: dict[str, Any] = {
    "id": "job_1",
    "owner_id": "user_1",
    "name": "",
    "labels": "{}",
    "spec": "{}",
    "status": "queued",
    "status_reason": "",
    "pool": "default",
    "priority": 1,
    "gpus": 0,
    "max_attempts": 3,
}
RUNNING = {"status": "running", "worker_id": "worker_1", "lease_expires_at": "2026-01-01"}
FAILED = {"status": "failed", "finished_at": "2026-01-01", "error": "{}"}


def insert_job(database: Database, **columns: Any) -> None:
    values = ROW | columns
    with database.engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, name) VALUES ('user_1', 'ana')"))
        connection.execute(
            text("INSERT INTO workers (id, host, pid, pool, slots, devices) VALUES ('worker_1', 'h', 1, 'p', 1, '[]')")
        )
        places = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({places})"), values)


def whole(status: Status) -> dict[str, Any]:
    """What a row of that status must have."""
    end = {"finished_at": "2026-01-01"} if status in FINAL else {}
    return {"status": status.value} | end | (RUNNING if status is Status.RUNNING else FAILED if status is Status.FAILED else {})


@pytest.mark.parametrize("status", Status)
def test_a_whole_row_of_each_state_is_taken(database: Database, status: Status) -> None:
    insert_job(database, **whole(status))


NOT_RUNNING = [status for status in Status if status is not Status.RUNNING]
NOT_FAILED = [status for status in Status if status is not Status.FAILED]
FORBIDDEN: dict[str, list[dict[str, Any]]] = {
    "ck_jobs_status": [{"status": "done"}, {"status": ""}],
    "ck_jobs_running_has_lease": [
        RUNNING | {"lease_expires_at": None},
        RUNNING | {"worker_id": None},
        *(whole(status) | {"lease_expires_at": "2026-01-01"} for status in NOT_RUNNING),
    ],
    "ck_jobs_final_has_end": [whole(status) | {"finished_at": None if status in FINAL else "2026-01-01"} for status in Status],
    "ck_jobs_failed_has_error": [FAILED | {"error": None}, *(whole(status) | {"error": "{}"} for status in NOT_FAILED)],
    "ck_jobs_stop_only_while_running": [whole(status) | {"stop_requested": "pause"} for status in NOT_RUNNING],
    "ck_jobs_attempts": [{"attempt": -1}, {"crashes": -1}, {"max_attempts": 0}],
}


@pytest.mark.parametrize(
    ("constraint", "columns"), [(constraint, columns) for constraint, rows in FORBIDDEN.items() for columns in rows]
)
def test_a_row_that_the_lifecycle_forbids_is_refused(database: Database, constraint: str, columns: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match=f'"{constraint}"'):
        insert_job(database, **columns)


@pytest.mark.parametrize("role", ["root", "", "Admin"])
def test_a_key_of_an_unknown_role_is_refused(database: Database, role: str) -> None:
    with pytest.raises(IntegrityError, match='"ck_api_keys_role"'), database.transaction() as session:
        create_key(session, user_name="ana", role=cast(Role, role))


def test_every_check_of_the_tables_is_tried_here() -> None:
    declared = {
        str(constraint.name)
        for table in Table.metadata.tables.values()
        for constraint in table.constraints
        if str(constraint.name).startswith("ck_")
    }
    assert declared == {*FORBIDDEN, "ck_api_keys_role"}
