"""PostgreSQL is away for longer than the lease, or the worker itself is frozen for so long: no job pays for it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select, text, update

from service import jobs
from service.jobs import Fence
from service.tables import Artifact, Job, JobEvent, LogChunk, MetricPoint
from tests.integration import database_faults
from tests.integration.jobs.conftest import FAILURE
from tests.integration.worker.conftest import Queue, WorkerProcess, Workers, until
from tests.trainers import is_over

Outage = Callable[[str, str], AbstractContextManager[None]]
FOREVER = {"max_steps": 1_000_000, "checkpoint_steps": 100}


@contextmanager
def altered(server: str, name: str, *, to: str, back: str) -> Iterator[None]:
    """Changes a setting of the database, for which every connection is ended, and changes it back."""
    with psycopg.connect(server, autocommit=True) as admin:
        _do(admin, f"ALTER DATABASE {name} {to}")
        _disconnect(admin, name)
        try:
            yield
        finally:
            _do(admin, f"ALTER DATABASE {name} {back}")


def read_only(server: str, name: str) -> AbstractContextManager[None]:
    """As after a fail-over, until the old primary is back."""
    setting = "default_transaction_read_only"
    return altered(server, name, to=f"SET {setting} = on", back=f"RESET {setting}")


def unreachable(server: str, name: str) -> AbstractContextManager[None]:
    """Every connection is lost, and no new one is taken."""
    return altered(server, name, to="ALLOW_CONNECTIONS false", back="ALLOW_CONNECTIONS true")


def frozen(server: str, name: str) -> AbstractContextManager[None]:
    """Every process of the server stands still: connections stay open, and nothing comes."""
    return database_faults.frozen(server)


@contextmanager
def crashing(server: str, name: str) -> Iterator[None]:
    """A session is killed, which restarts the whole server; then nobody reaches it for a time."""
    with psycopg.connect(server, autocommit=True) as admin:
        row = admin.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s LIMIT 1", [name]).fetchone()
        assert row is not None
        os.kill(row[0], signal.SIGKILL)
        until(lambda: _is_cut(admin))  # as every session is; before that the server still answers
    until(lambda: _answers(server))
    with unreachable(server, name):
        yield


def _is_cut(admin: psycopg.Connection[Any]) -> bool:
    try:
        admin.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def _answers(server: str) -> bool:
    try:
        psycopg.connect(server).close()
    except psycopg.OperationalError:
        return False
    return True


def _do(admin: psycopg.Connection[Any], statement: str) -> None:
    admin.execute(statement.encode())


def _disconnect(admin: psycopg.Connection[Any], name: str) -> None:
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


@pytest.fixture
def during(postgres_url: str, database_url: str) -> Callable[[Outage], AbstractContextManager[None]]:
    """An outage of this module's database."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    return lambda outage: outage(postgres_url, name)


@pytest.fixture
def worker(workers: Workers, queue: Queue) -> WorkerProcess:
    """A worker that runs, and that is stopped soon, as the database may be away then."""
    return workers.running() or workers.start(stop_grace_seconds=1)


@pytest.mark.parametrize("outage", [read_only, frozen, crashing])
def test_a_job_trains_on_through_an_outage_that_is_longer_than_its_lease(
    worker: WorkerProcess,
    queue: Queue,
    during: Callable[[Outage], AbstractContextManager[None]],
    outage: Outage,
    undisturbed: bytes,
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="teacher" if outage is read_only else "student")
    waiting = f"{job_id} waits for the renewal of its lease"
    with during(outage):
        until(lambda: waiting in worker.log)
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes, job.losses) == (1, 0, 0)
    assert queue.student(job_id) == undisturbed
    assert worker.process.poll() is None


def everything(queue: Queue, job_id: str) -> list[Any]:
    """All that attempts write of a job."""
    with queue.database.transaction() as session:
        job = session.get_one(Job, job_id)
        counts = [
            session.scalar(select(func.count()).where(table.job_id == job_id))
            for table in (Artifact, JobEvent, LogChunk, MetricPoint)
        ]
        return [job.version, job.progress, job.lease_expires_at, *counts]


def test_a_frozen_worker_whose_job_another_has_claimed_writes_nothing_when_it_thaws(worker: WorkerProcess, queue: Queue) -> None:
    job_id = queue.submit(training=FOREVER)
    queue.until_checkpoint(job_id, phase="student")
    (trainer,) = worker.trainers()
    worker.signal(signal.SIGSTOP)
    try:
        with queue.database.transaction() as session:
            session.execute(
                update(Job)
                .where(Job.id == job_id)
                .values(attempt=Job.attempt + 1, lease_expires_at=text("now() + interval '1 hour'"))
            )
        before = everything(queue, job_id)
    finally:
        worker.signal(signal.SIGCONT)
    until(lambda: f"lost the lease of {job_id} attempt 1" in worker.log)
    until(lambda: is_over(trainer))
    assert everything(queue, job_id) == before
    queue.database.run(lambda session: jobs.fail(session, Fence(job_id, 2), FAILURE))


def test_a_worker_that_was_frozen_for_longer_than_its_lease_keeps_what_nobody_took(
    worker: WorkerProcess, queue: Queue, undisturbed: bytes
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    expired = select(Job.id).where(Job.id == job_id, Job.lease_expires_at < func.now())
    worker.signal(signal.SIGSTOP)
    try:
        until(lambda: queue.database.run(lambda session: session.scalar(expired)))
    finally:
        worker.signal(signal.SIGCONT)
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes, job.losses) == (1, 0, 0)
    assert queue.student(job_id) == undisturbed


def test_a_cancel_ends_a_job_that_waits_for_the_store(worker: WorkerProcess, queue: Queue) -> None:
    job_id = queue.submit(training=FOREVER)
    queue.until_checkpoint(job_id, phase="student")
    folder = Path(queue.store_folder)
    away = folder.rename(folder.with_name("away"))
    folder.touch()
    try:
        until(lambda: f"{job_id} waits for the store" in worker.log)
        with queue.database.transaction() as session:
            jobs.request_cancel(session, job_id, keep="none")
        job = queue.until_status(job_id, "cancelled")
    finally:
        folder.unlink()
        away.rename(folder)
    assert (job.attempt, job.crashes) == (1, 0)


def test_a_worker_ends_and_another_starts_while_the_database_is_away(
    worker: WorkerProcess,
    workers: Workers,
    queue: Queue,
    during: Callable[[Outage], AbstractContextManager[None]],
    undisturbed: bytes,
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    with during(unreachable):
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        impatient = workers.launch()
        until(lambda: "waits for the database" in impatient.log)
        impatient.signal(signal.SIGTERM)
        assert impatient.wait() == 0
        assert [*worker.files_of_jobs(), *impatient.files_of_jobs()] == []
        following = workers.launch()
        until(lambda: "waits for the database" in following.log)
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 0)
    assert queue.student(job_id) == undisturbed
