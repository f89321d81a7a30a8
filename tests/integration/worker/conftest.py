"""Real workers on real servers: each is a ``python -m worker`` process with trainers of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from sqlalchemy import select

from service import jobs
from service.broker import Broker
from service.database import Database
from service.embedded.servers import Valkey
from service.spec import parse_spec
from service.store import Store
from service.tables import Artifact, Job, JobEvent, User, Worker

T = TypeVar("T")
TIMEOUT_SECONDS = 90
HEARTBEAT_SECONDS = 0.5


class WorkerProcess:
    """One worker, with a short lease so that a lost one is noticed soon."""

    def __init__(
        self,
        database: Database,
        database_url: str,
        valkey: Valkey,
        store_url: str,
        folder: Path,
        *,
        devices: str,
        stop_grace_seconds: float,
    ) -> None:
        env = os.environ | {
            "DATABASE_URL": database_url,
            "REDIS_URL": valkey.url,
            "STILLHOUSE_STORE": store_url,
            "STILLHOUSE_SCRATCH": str(folder / "scratch"),
            "STILLHOUSE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
            "STILLHOUSE_LEASE_SECONDS": "4",
            "STILLHOUSE_SWEEP_SECONDS": "0.5",
            "STILLHOUSE_STOP_GRACE_SECONDS": str(stop_grace_seconds),
        }
        self._log = (folder / "worker.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", "--devices", devices], env=env, stdout=self._log, stderr=self._log
        )
        self._log_path = folder / "worker.log"
        self.row = self._registered(database)

    def _registered(self, database: Database) -> Worker:
        def registered() -> Worker | None:
            assert self.process.poll() is None, self._log_path.read_text()
            with database.transaction() as session:
                return session.scalar(select(Worker).where(Worker.pid == self.process.pid))

        return until(registered)

    def trainers(self) -> list[psutil.Process]:
        """The trainer processes that run now: children of the fork server."""
        with suppress(psutil.NoSuchProcess):
            return [
                child for child in psutil.Process(self.process.pid).children(recursive=True) if child.ppid() != self.process.pid
            ]
        return []

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_SECONDS)

    @property
    def log(self) -> str:
        return self._log_path.read_text()

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
        time.sleep(0.02)
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
            job, _ = jobs.submit(session, owner_id="user_test", spec=parse_spec(long_spec() | changes))
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
        """Until that attempt has a checkpoint of that phase that is not its end."""

        def written() -> bool:
            assert self.job(job_id).finished_at is None, "the job was over before its checkpoint was seen"
            started = self.events(job_id, "job.running")
            if len(started) < attempt:
                return False
            return any(
                event.seq > started[attempt - 1].seq and event.data["phase"] == phase and event.data["step"] < LONG_STEPS
                for event in self.events(job_id, "checkpoint")
            )

        until(written)

    def student(self, job_id: str) -> bytes:
        with self.database.transaction() as session:
            row = session.get_one(Artifact, (job_id, "student/model.safetensors"))
        return b"".join(self.store.stream(row.path))


LONG_STEPS = 1500


def long_spec() -> dict[str, Any]:
    """Some seconds of training, with checkpoints in the middle of epochs."""
    return {
        "name": "a few seconds",
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 100, "batch_size": 32}},
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"max_steps": LONG_STEPS, "batch_size": 32, "checkpoint_steps": 130},
    }


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def queue(database: Database, broker: Broker, store: Store, store_url: str) -> Queue:
    return Queue(database, broker, store, store_url)


@pytest.fixture
def start_worker(
    database: Database, database_url: str, valkey_server: Valkey, store_url: str, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def start(*, devices: str = "cpu:1", stop_grace_seconds: float = 60) -> WorkerProcess:
        folder = tmp_path / f"worker-{len(started)}"
        folder.mkdir()
        started.append(
            WorkerProcess(
                database, database_url, valkey_server, store_url, folder, devices=devices, stop_grace_seconds=stop_grace_seconds
            )
        )
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The student of ``long_spec`` when nothing happens to it, trained with no service at all."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "spec.json").write_text(parse_spec(long_spec()).model_dump_json())
    code = (
        "import os, sys, torch; from pathlib import Path; "
        "from service.spec import load_spec; from worker.standalone import train;"
        "torch.set_num_threads(os.cpu_count() or 1); train(load_spec(Path(sys.argv[1])), Path(sys.argv[2]), lambda event: None)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder / "spec.json"), str(folder / "out")], check=True, capture_output=True, timeout=120
    )
    return (folder / "out/student/model.safetensors").read_bytes()
