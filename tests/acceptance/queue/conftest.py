"""A team's site: an API and two workers, of three CPU slots each, as on two hosts; three people, each with a key."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any, TypeVar

import psutil
import pytest

from service.client import Client, Conflict, Job, WaitingJob
from service.embedded.processes import Child
from service.embedded.stack import Stack, stack
from tests.conftest import own_folder, reserved_port
from tests.trainers import trainers_of

T = TypeVar("T")
SECONDS = 90
SETTINGS = {
    "STILLHOUSE_HEARTBEAT_SECONDS": "0.5",
    "STILLHOUSE_SWEEP_SECONDS": "0.5",
    "STILLHOUSE_QUEUE_PICTURE_SECONDS": "0",
    "STILLHOUSE_RESERVE_AFTER_SECONDS": "1",
    "STILLHOUSE_PREFLIGHT": "false",
}
SLOTS = 3
DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 2}, "training": {"max_steps": 2}},
    "student": {"architecture": {"name": "small-cnn", "width": 2}},
    "evaluation": {"control": False},
}
SHORT = DIGITS | {"training": {"max_steps": 20, "batch_size": 32}}
LONG = DIGITS | {"training": {"max_steps": 1_000_000, "batch_size": 32, "checkpoint_steps": 200}}
"""Trains until it is stopped."""
RESUMABLE = DIGITS | {"training": {"max_steps": 1000, "batch_size": 32, "checkpoint_steps": 100}}
"""Trains for some seconds."""


def until(look: Callable[[], T | None]) -> T:
    """What ``look`` answers once it answers something."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} saw nothing within {SECONDS} s"
        time.sleep(0.2)  # each look is a picture of the whole queue
    return found


class Site:
    """What the tests do and see, over HTTP."""

    def __init__(self, running: Stack, second: Child) -> None:
        self._processes = [running.worker.pid, second.pid]
        connection = running.connection
        self.url, self.environment = connection.url, running.environment
        self.ada = Client(connection.url, connection.api_key)
        """The admin."""
        self._num_tests, self._members = 0, ExitStack()
        self._still: dict[str, list[psutil.Process]] = {}
        self.newcomers()

    def newcomers(self) -> None:
        """Has ``ben`` and ``eva`` be two members who have used nothing yet."""
        self._num_tests += 1
        self._members.close()
        self.ben, self.eva = (
            self._members.enter_context(
                Client(self.url, self.ada.create_key(user=f"{name} {self._num_tests}", role="member").key)
            )
            for name in ("ben", "eva")
        )

    def close(self) -> None:
        self._members.close()
        self.ada.close()

    @property
    def workers(self) -> list[str]:
        """Their ids, in the order in which they were started."""
        by_pid = {worker.pid: worker.id for worker in self.ada.workers()}
        return [by_pid[pid] for pid in self._processes]

    def run(self, client: Client, spec: dict[str, Any], **resources: Any) -> Job:
        """Submits a job and waits until its student trains."""
        return self.until_trains(client.submit(spec | {"resources": resources}).id)

    def hold(self, client: Client, **resources: Any) -> Job:
        """Runs a job that holds its devices until it is stopped."""
        others = self.trainers()
        job = self.run(client, LONG, **resources)
        self.stand_still(job, [trainer for trainer in self.trainers() if trainer not in others])
        return job

    def stand_still(self, job: Job, trainers: list[psutil.Process]) -> None:
        """Has a job leave the cores to whatever else runs here: nobody waits for what it trains. It goes on to be stopped."""
        for trainer in trainers:
            trainer.suspend()
        self._still[job.id] = trainers

    def cancel(self, client: Client, job_id: str) -> None:
        """Cancels a job, be it one that stands still."""
        client.cancel(job_id, keep="none")
        for trainer in self._still.pop(job_id, ()):
            with suppress(psutil.NoSuchProcess):
                trainer.resume()

    def until_trains(self, job_id: str, *, steps: int = 1) -> Job:
        def training() -> Job | None:
            job = self.ada.job(job_id)
            assert not job.terminal, (job.status, job.error)
            progress = job.progress if job.status == "running" else None
            return job if progress is not None and progress.phase == "student" and (progress.step or 0) >= steps else None

        return until(training)

    def until_event(self, job_id: str, type_: str, **data: Any) -> dict[str, Any]:
        """What the first event of that type and that data tells."""

        def happened() -> dict[str, Any] | None:
            told = (event.data or {} for event in self.ada.events_until_now(job_id) if event.type == type_)
            return next((each for each in told if each.items() >= data.items()), None)

        return until(happened)

    def until_status(self, job_id: str, status: str) -> Job:
        def reached() -> Job | None:
            job = self.ada.job(job_id)
            assert job.status == status or not job.terminal, (job.status, job.error)
            return job if job.status == status else None

        return until(reached)

    def until_waits(self, job_id: str, cause: str) -> WaitingJob:
        """A queued job, once the queue and its own explanation say that it waits for that."""

        def explained() -> WaitingJob | None:
            explanation = self.ada.explain(job_id)
            assert explanation.status == "queued", explanation
            told = next((job for job in self.ada.queue().waiting if job.id == job_id), None)
            both = {each.blocker.cause for each in (explanation, told) if each is not None and each.blocker is not None}
            return told if both == {cause} else None

        return until(explained)

    def held(self, worker_id: str) -> dict[str, list[str]]:
        """The jobs on each device of a worker."""
        (worker,) = (worker for worker in self.ada.workers() if worker.id == worker_id)
        return {device.name: device.job_ids for device in worker.devices}

    def trainers(self, worker_id: str | None = None) -> list[psutil.Process]:
        """The processes that train now, of one worker or of both."""
        pids = self._processes if worker_id is None else [self._processes[self.workers.index(worker_id)]]
        return [trainer for pid in pids for trainer in trainers_of(pid)]

    def student(self, job_id: str) -> str:
        """The SHA-256 of a finished student's weights."""
        (weights,) = (each for each in self.ada.artifacts(job_id) if each.name == "student/model.safetensors")
        return weights.sha256

    def settle(self) -> None:
        """Nothing waits, nothing runs, and every worker takes jobs."""
        for worker_id in self.workers:
            self.ada.drain(worker_id, finish=True)
        for status in ("waiting", "paused", "queued", "running"):
            for job in list(self.ada.jobs(status=status)):
                with suppress(Conflict):  # it has just ended
                    self.cancel(self.ada, job.id)
        until(lambda: not list(self.ada.jobs(status="running")))
        for worker_id in self.workers:
            self.ada.undrain(worker_id)
        until(lambda: not self.trainers())


@pytest.fixture(scope="package")
def _site() -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as parts:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        folder = parts.enter_context(own_folder())
        port = parts.enter_context(reserved_port())
        running = parts.enter_context(stack(folder, port=port, devices=f"cpu:{SLOTS}", say=lambda text: None))
        second = Child(
            "second worker",
            [sys.executable, "-m", "worker", "--devices", f"cpu:{SLOTS}"],
            env=running.environment,
            log=folder / "logs" / "second.log",
        )
        parts.callback(second.stop, grace_seconds=30)
        second.start()
        with Client(running.connection.url, running.connection.api_key) as client:
            second.wait_until(lambda: len(client.workers()) == 2, timeout_seconds=SECONDS)
        with closing(Site(running, second)) as site:
            yield site


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    _site.newcomers()
    yield _site
    _site.settle()


@pytest.fixture(scope="package")
def undisturbed(_site: Site) -> str:
    """The student of RESUMABLE when nothing happens to it, as its SHA-256."""
    job = _site.ben.wait(_site.ben.submit(RESUMABLE).id, timeout_seconds=SECONDS)
    return _site.student(job.id)
