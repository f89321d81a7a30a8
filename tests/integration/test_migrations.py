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
from service.database import Database, downgrade, upgrade
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


OLD_JOB = """
    INSERT INTO jobs (id, owner_id, name, labels, spec, status, status_reason, pool, priority, gpus, max_attempts, finished_at,
                      error)
    VALUES (:id, 'user_1', '', '{"project": "x", "run": "1"}', '{"resources": {"max_runtime_seconds": 60}}', :status, '',
            'default', 1, 0, 3, CASE WHEN :status <> 'paused' THEN now() END, CAST(:error AS jsonb))"""
OLD_CHECKPOINT = """
    INSERT INTO artifacts (job_id, name, kind, attempt, path, size, sha256, media_type)
    VALUES (:id, 'checkpoint.safetensors', 'checkpoint', 1, :id, 3, '00', 'x/y')"""


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
    engine = create_engine(for_sqlalchemy(empty_url))
    yield engine
    engine.dispose()


def for_sqlalchemy(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:", 1)


def schema(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """What is in the database, alembic's own table apart."""
    with engine.connect() as connection:
        found = {name: {tuple(row) for row in connection.execute(text(query))} for name, query in SCHEMA.items()}
    return {name: {row for row in rows if not str(row[0]).startswith("alembic_version")} for name, rows in found.items()}


def test_an_upgraded_database_is_the_tables_to_the_letter(
    postgres_url: str, empty_engine: Engine, template_database: str
) -> None:
    Table.metadata.create_all(empty_engine)
    migrated = create_engine(for_sqlalchemy(on_database(postgres_url, template_database)))
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


def test_labels_and_spent_checkpoints_of_stored_jobs_come_along_and_back(empty_url: str, empty_engine: Engine) -> None:
    upgrade(empty_url, "0003")
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, name) VALUES ('user_1', 'ana')"))
        for status, error in (("succeeded", None), ("failed", "time_limit"), ("failed", "trainer_crashed"), ("paused", None)):
            values = {"id": f"job_{status}_{error}", "status": status, "error": error and f'{{"code": "{error}"}}'}
            connection.execute(text(OLD_JOB), values)
            connection.execute(text(OLD_CHECKPOINT), values)
    upgrade(empty_url, "0004")
    with empty_engine.connect() as connection:
        labels = connection.execute(text("SELECT key, value FROM job_labels WHERE job_id = 'job_paused_None' ORDER BY key"))
        assert [tuple(row) for row in labels] == [("project", "x"), ("run", "1")]
        spent = connection.scalars(text("SELECT job_id FROM artifacts WHERE kind = 'spent' ORDER BY job_id"))
        assert list(spent) == ["job_failed_trainer_crashed", "job_succeeded_None"]
    downgrade(empty_url, "0003")
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM artifacts WHERE kind = 'checkpoint'")) == 4


def test_models_of_finished_jobs_come_along_and_back(empty_url: str, empty_engine: Engine) -> None:
    model = "INSERT INTO models (id, owner_id, name, task, job_id, classes, input_shape, files{}) VALUES "
    upgrade(empty_url, "0003")
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, name) VALUES ('user_1', 'ana')"))
        for job_id in ("job_1", "job_2"):
            connection.execute(text(OLD_JOB), {"id": job_id, "status": "cancelled", "error": None})
    upgrade(empty_url, "0011")
    with empty_engine.begin() as connection:
        connection.execute(text(model.format("") + "('model_1', 'user_1', '', '', 'job_1', '{}', '{}', '[]')"))
        connection.execute(text("INSERT INTO job_teachers (job_id, model_id) VALUES ('job_2', 'model_1')"))
    upgrade(empty_url)
    with empty_engine.begin() as connection:
        connection.execute(text(model.format(", part") + "('model_2', 'user_1', '', '', 'job_1', '{}', '{}', '[]', 'teacher')"))
        connection.execute(text(model.format(", handle") + "('model_3', 'user_1', '', '', NULL, '{}', '{}', '[]', 'signs')"))
        connection.execute(text("INSERT INTO job_teachers (job_id, model_id) VALUES ('job_2', 'model_2'), ('job_2', 'model_3')"))
        connection.execute(text("INSERT INTO blobs (sha256, path, size) VALUES ('00', 'blobs/00', 1)"))
        connection.execute(text("INSERT INTO model_blobs (model_id, sha256) VALUES ('model_3', '00')"))
    downgrade(empty_url, "0011")
    upgrade(empty_url)
    with empty_engine.begin() as connection:
        assert connection.execute(text("SELECT id, part, handle FROM models ORDER BY id")).all() == [
            ("model_1", "student", None),
            ("model_3", "student", None),
        ]
        assert connection.scalars(text("SELECT model_id FROM job_teachers ORDER BY 1")).all() == ["model_1", "model_3"]


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
        with closing(create_engine(for_sqlalchemy(empty_url), isolation_level="AUTOCOMMIT").connect()) as watcher:
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
    "queue_class": 1,
    "gpus": 0,
    "shape": "cpu:1",
    "max_runtime_seconds": 60,
    "max_attempts": 3,
    "waiting_since": "2026-01-01",
}
RUNNING = {"status": "running", "waiting_since": None, "worker_id": "worker_1", "lease_expires_at": "2026-01-01"}
FAILED = {"status": "failed", "waiting_since": None, "finished_at": "2026-01-01", "error": "{}"}


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
    row: dict[str, Any] = {"finished_at": "2026-01-01"} if status in FINAL else {}
    if status is not Status.QUEUED:
        row["waiting_since"] = None
    by_status = {Status.RUNNING: RUNNING, Status.FAILED: FAILED}
    return {"status": status.value} | row | by_status.get(status, {})


@pytest.mark.parametrize("status", Status)
def test_a_whole_row_of_each_state_is_taken(database: Database, status: Status) -> None:
    insert_job(database, **whole(status))


NOT_RUNNING = [status for status in Status if status is not Status.RUNNING]
NOT_FAILED = [status for status in Status if status is not Status.FAILED]
FORBIDDEN: dict[str, list[dict[str, Any]]] = {
    "ck_jobs_status": [{"status": "done", "waiting_since": None}, {"status": "", "waiting_since": None}],
    "ck_jobs_running_has_lease": [
        RUNNING | {"lease_expires_at": None},
        RUNNING | {"worker_id": None},
        *(whole(status) | {"lease_expires_at": "2026-01-01"} for status in NOT_RUNNING if status is not Status.CHECKING),
    ],
    "ck_jobs_queued_since": [
        *({**whole(status), "waiting_since": None if status is Status.QUEUED else "2026-01-01"} for status in Status)
    ],
    "ck_jobs_only_queued_reserves": [
        whole(status) | {"reserved_worker_id": "worker_1"} for status in Status if status is not Status.QUEUED
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


FORBIDDEN_ELSEWHERE = {
    "ck_users_share_weight": "UPDATE users SET share_weight = 0",
    "ck_users_limits": "UPDATE users SET max_running_jobs = -1",
    "ck_job_dependencies_another": "INSERT INTO job_dependencies (job_id, needs_job_id) VALUES ('job_1', 'job_1')",
    "ck_models_part": "INSERT INTO models (id, owner_id, name, task, part, classes, input_shape, files) "
    "VALUES ('model_1', 'user_1', '', '', 'control', '{}', '{}', '[]')",
    "ck_store_identity_one": "INSERT INTO store_identity (one, id) VALUES (false, 'store_1')",
}


@pytest.mark.parametrize("constraint", FORBIDDEN_ELSEWHERE)
def test_what_makes_no_sense_of_users_and_needs_is_refused(database: Database, constraint: str) -> None:
    insert_job(database)
    with pytest.raises(IntegrityError, match=f'"{constraint}"'), database.engine.begin() as connection:
        connection.execute(text(FORBIDDEN_ELSEWHERE[constraint]))


def test_every_check_of_the_tables_is_tried_here() -> None:
    declared = {
        str(constraint.name)
        for table in Table.metadata.tables.values()
        for constraint in table.constraints
        if str(constraint.name).startswith("ck_")
    }
    assert declared == {*FORBIDDEN, *FORBIDDEN_ELSEWHERE, "ck_api_keys_role"}
