"""Real workers on real servers: each is a ``python -m worker`` process with trainers of its own.

A worker goes on from test to test of a module until a test ends it; after each test its jobs and their files are gone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from sqlalchemy import select

from service import jobs
from service.broker import Broker
from service.database import Database
from service.embedded.servers import Valkey
from service.notifications import Notifier
from service.spec import parse_spec
from service.store import MARKER, Store
from service.tables import Artifact, Job, JobEvent, Table, User, Worker
from tests.trainers import trainers_of
from worker.host.executor import LocalExecutor, follow
from worker.protocol import RESULT_FOLDER, Assignment, Finished

T = TypeVar("T")
TIMEOUT_SECONDS = 90
HEARTBEAT_SECONDS = 0.5
LEASE_SECONDS = 4.0
SLOTS = 2


class WorkerProcess:
    """One worker of two CPU slots, with a short lease so that a lost one is noticed soon."""

    def __init__(
        self,
        database: Database,
        database_url: str,
        valkey: Valkey,
        store_url: str,
        folder: Path,
        *,
        stop_grace_seconds: float,
    ) -> None:
        self.folder = folder
        env = os.environ | {
            "DATABASE_URL": database_url,
            "REDIS_URL": valkey.url,
            "STILLHOUSE_STORE": store_url,
            "STILLHOUSE_SCRATCH": str(folder / "scratch"),
            "STILLHOUSE_FILE_ROOTS": '["/"]',
            "STILLHOUSE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
            "STILLHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
            "STILLHOUSE_DATABASE_SECONDS": "1",
            "STILLHOUSE_SWEEP_SECONDS": "0.5",
            "STILLHOUSE_STOP_GRACE_SECONDS": str(stop_grace_seconds),
        }
        self._log = (folder / "worker.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", "--devices", f"cpu:{SLOTS}"], env=env, stdout=self._log, stderr=self._log
        )
        self._log_path = folder / "worker.log"
        self._database = database

    def until_registered(self) -> Worker:
        database = self._database

        def registered() -> Worker | None:
            assert self.process.poll() is None, self._log_path.read_text()
            with database.transaction() as session:
                return session.scalar(select(Worker).where(Worker.pid == self.process.pid))

        return until(registered)

    def trainers(self) -> list[psutil.Process]:
        """The processes that train or check now."""
        return trainers_of(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_SECONDS)

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def files_of_jobs(self) -> list[Path]:
        """The scratch folders of this worker, and of those before it in the same place."""
        return list((self.folder / "scratch").glob("stillhouse-*"))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()


def until(look: Callable[[], T | None]) -> T:
    """What ``look`` answers once it answers something."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)  # a look costs milliseconds, which trainers want
    raise AssertionError(f"{look} saw nothing within {TIMEOUT_SECONDS} s")


class Queue:
    """Submits jobs and watches them, in the database itself."""

    def __init__(self, database: Database, broker: Broker, store: Store, store_url: str) -> None:
        self.database = database
        self.broker = broker
        self.store = store
        self.store_folder = store_url.removeprefix("file://")
        with database.transaction() as session:
            session.add(User(id="user_test", name="ana"))

    def submit(self, **changes: Any) -> str:
        with self.database.transaction() as session:
            job = jobs.submit(session, owner_id="user_test", spec=parse_spec(long_spec() | changes))
        self.broker.wake("default")
        return job.id

    def job(self, job_id: str) -> Job:
        with self.database.transaction() as session:
            return jobs.get(session, job_id)

    def events(self, job_id: str, kind: str) -> list[JobEvent]:
        with self.database.transaction() as session:
            return list(
                session.scalars(select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == kind).order_by(JobEvent.seq))
            )

    def until_status(self, job_id: str, *statuses: str) -> Job:
        def reached() -> Job | None:
            job = self.job(job_id)
            assert job.finished_at is None or job.status in statuses, (job.status, job.error)
            return job if job.status in statuses else None

        return until(reached)

    def until_checkpoint(self, job_id: str, *, phase: str, attempt: int = 1) -> None:
        """Until that attempt has a checkpoint of that phase that is not the student's last."""

        def written() -> bool:
            job = self.job(job_id)
            assert job.finished_at is None, "the job was over before its checkpoint was seen"
            started = self.events(job_id, "job.running")
            if len(started) < attempt:
                return False
            return any(
                event.seq > started[attempt - 1].seq
                and event.data["phase"] == phase
                and event.data["step"] < job.spec["training"]["max_steps"]
                for event in self.events(job_id, "checkpoint")
            )

        until(written)

    def end(self, job_id: str) -> None:
        """Cancels a job, which leaves the cores to the others."""
        with self.database.transaction() as session:
            jobs.request_cancel(session, job_id, keep="none")

    def end_all(self) -> None:
        """Cancels what has not ended, and waits until it has."""
        left = select(Job.id).where(Job.finished_at.is_(None))
        with self.database.transaction() as session:
            for job_id in session.scalars(left).all():
                jobs.request_cancel(session, job_id, keep="none")

        def ended() -> bool:
            with self.database.transaction() as session:
                return session.scalar(left) is None

        until(ended)

    def student(self, job_id: str) -> bytes:
        with self.database.transaction() as session:
            row = session.get_one(Artifact, (job_id, "student/model.safetensors"))
        return b"".join(self.store.stream(row.path))


LONG_STEPS = 800
SHORT_STEPS = 100
SHORT: dict[str, Any] = {"training": {"max_steps": SHORT_STEPS, "batch_size": 32}}
"""Where nothing is to happen in the middle of it."""


def long_spec() -> dict[str, Any]:
    """Some seconds of training, with checkpoints in the middle of epochs."""
    return {
        "name": "a few seconds",
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 100, "batch_size": 32}},
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"max_steps": LONG_STEPS, "batch_size": 32, "checkpoint_steps": 70},
    }


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file://{tmp_path_factory.mktemp('store')}"


@pytest.fixture(scope="module")
def module_database(database_url: str, valkey_server: Valkey) -> Iterator[Database]:
    """Keeps the rows of the running worker from test to test."""
    with closing(Notifier(valkey_server.url)) as notifier, closing(Database(database_url, notify=notifier)) as opened:
        yield opened


class Workers:
    """The worker that takes the jobs of a module's tests."""

    def __init__(self, start: Callable[[int, float], WorkerProcess]) -> None:
        self._start = start
        self._started: list[WorkerProcess] = []

    def start(self, *, stop_grace_seconds: float = 60) -> WorkerProcess:
        """Starts a worker in the place of the one before, which need not have ended."""
        worker = self.launch(stop_grace_seconds=stop_grace_seconds)
        worker.until_registered()
        return worker

    def launch(self, *, stop_grace_seconds: float = 60) -> WorkerProcess:
        """The same, and does not wait until it takes jobs."""
        self.close()
        self._started.append(self._start(len(self._started), stop_grace_seconds))
        return self._started[-1]

    def running(self) -> WorkerProcess | None:
        return self._started[-1] if self._started and self._started[-1].process.poll() is None else None

    def close(self) -> None:
        """Ends the last one. Harmless when it has ended."""
        if self._started:
            self._started[-1].close()

    def settle(self) -> None:
        """Waits until nothing is trained, and forgets what teachers said."""
        if (worker := self.running()) is not None:
            until(lambda: not worker.trainers())
            shutil.rmtree(worker.folder / "scratch" / "teacher-cache", ignore_errors=True)


@pytest.fixture(scope="module")
def workers(
    module_database: Database,
    database_url: str,
    valkey_server: Valkey,
    store_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")

    def start(number: int, stop_grace_seconds: float) -> WorkerProcess:
        own = folder / str(number)
        own.mkdir()
        return WorkerProcess(module_database, database_url, valkey_server, store_url, own, stop_grace_seconds=stop_grace_seconds)

    with closing(Workers(start)) as workers:
        yield workers


@pytest.fixture
def queue(module_database: Database, broker: Broker, store_url: str, workers: Workers) -> Iterator[Queue]:
    """A queue without a job."""
    made = Queue(module_database, broker, Store(store_url), store_url)
    yield made
    made.end_all()
    workers.settle()
    with module_database.engine.begin() as connection:
        for table in reversed(Table.metadata.sorted_tables):
            if table is not Worker.__table__:
                connection.execute(table.delete())
    for inner in Path(store_url.removeprefix("file://")).iterdir():
        if inner.name != MARKER:
            shutil.rmtree(inner, ignore_errors=True)


@pytest.fixture
def worker(workers: Workers, queue: Queue) -> WorkerProcess:
    """A worker that runs: that of the test before, where it still does."""
    return workers.running() or workers.start()


@pytest.fixture
def start_worker(workers: Workers) -> Callable[..., WorkerProcess]:
    """Starts a worker in the place of the one before."""
    return workers.start


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The student of ``long_spec`` when nothing happens to it, trained with no worker at all, once in a run of the suite:
    whichever of its test processes comes first."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "alone"
    folder.mkdir(exist_ok=True)
    student = folder / RESULT_FOLDER / "student/model.safetensors"
    with (folder / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not (folder / "finished").exists():
            threads = max(1, (os.cpu_count() or 1) // SLOTS)
            spec = parse_spec(long_spec()).model_dump(mode="json")
            ending = follow(LocalExecutor().start(Assignment(job_id="alone", spec=spec, folder=folder, num_threads=threads)))
            assert isinstance(ending.last, Finished)
            (folder / "finished").touch()
        return student.read_bytes()
