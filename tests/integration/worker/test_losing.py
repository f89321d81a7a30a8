"""What a worker loses: its trainer, its own life, its lease, Redis. Each time the job ends as if nothing had happened."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import text, update

from service import jobs
from service.embedded.servers import Valkey
from service.jobs import Fence
from service.tables import Artifact, Job
from tests.integration.jobs.conftest import FAILURE
from tests.integration.worker.conftest import LONG_STEPS, SHORT, Queue, WorkerProcess, until
from tests.trainers import is_over, open_files

Start = Callable[..., WorkerProcess]


# The first, as it needs a worker of its own: the tests behind it go on with that one, and stop no trainer before they end it.
def test_a_trainer_that_hangs_when_its_time_is_over_is_killed_for_the_time_limit(start_worker: Start, queue: Queue) -> None:
    worker = start_worker(stop_grace_seconds=1)
    job_id = queue.submit(training={"max_steps": 1_000_000}, resources={"max_runtime_seconds": 2})
    until(worker.trainers)[0].suspend()
    job = queue.until_status(job_id, "failed")
    assert job.error is not None
    assert (job.error["code"], job.attempt) == ("time_limit", 1)


@pytest.mark.parametrize(("phase", "number"), [("teacher", signal.SIGKILL), ("student", signal.SIGHUP)])
def test_a_killed_trainer_is_resumed_to_the_same_student(
    worker: WorkerProcess, queue: Queue, undisturbed: bytes, phase: str, number: signal.Signals
) -> None:
    teacher = {
        "architecture": {"name": "small-cnn", "width": 8},
        "training": {"max_steps": 100, "batch_size": 32, "checkpoint_steps": 10},
    }
    job_id = queue.submit(teacher=teacher)
    queue.until_checkpoint(job_id, phase=phase)
    worker.trainers()[0].send_signal(number)
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 0), "somebody killed it, and not the kernel for its memory"
    assert queue.student(job_id) == undisturbed
    assert f"killed by {number.name}, and not by the kernel" in queue.events(job_id, "job.queued")[-1].message


def trainers_in(worker: WorkerProcess, folder: str) -> list[psutil.Process]:
    return [one for one in worker.trainers() if folder in str(open_files(one))]


def test_a_worker_that_loses_one_attempt_after_the_other_pauses_before_the_next(worker: WorkerProcess, queue: Queue) -> None:
    job_id, known = queue.submit(training={"max_steps": 1_000_000}), worker.log.count("attempts in a row were lost here")
    until(lambda: (queue.job(job_id).progress or {}).get("phase") == "student")  # it reads signals by then
    (worker.files_of_jobs()[0] / f"{job_id}-2").touch()  # where the second has its folder
    trainers_in(worker, f"{job_id}-1")[0].terminate()
    until(lambda: worker.log.count("attempts in a row were lost here") > known)
    assert "FileExistsError" in queue.events(job_id, "job.queued")[-1].message
    assert queue.job(job_id).crashes == 0


def test_a_killed_fork_server_costs_no_attempt_and_the_next_one_forks_what_a_signal_ends(
    worker: WorkerProcess, queue: Queue, undisturbed: bytes
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    server = worker.trainers()[0].parent()
    assert server is not None
    assert server.pid != worker.process.pid
    server.kill()
    queue.until_checkpoint(job_id, phase="student", attempt=2)
    worker.trainers()[0].terminate()
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (3, 0)
    assert queue.student(job_id) == undisturbed
    told = [event.message for event in queue.events(job_id, "job.queued")][-2:]
    assert ["the fork server ended" in told[0], "was sent SIGTERM" in told[1]] == [True, True], told


def test_a_trainer_that_dies_by_itself_each_time_fails_the_job_with_the_reason(worker: WorkerProcess, queue: Queue) -> None:
    job_id = queue.submit(max_attempts=2, training={"max_steps": 1_000_000, "checkpoint_steps": 100})
    for attempt in (1, 2):
        queue.until_checkpoint(job_id, phase="student", attempt=attempt)
        worker.trainers()[0].send_signal(signal.SIGSEGV)
    job = queue.until_status(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "trainer_crashed"
    assert (job.attempt, job.crashes) == (2, 2)
    assert worker.process.poll() is None


def test_a_killed_worker_takes_its_trainers_along_and_another_resumes_its_jobs_at_no_charge(
    worker: WorkerProcess, start_worker: Start, queue: Queue, undisturbed: bytes
) -> None:
    last_attempt = queue.submit(max_attempts=1, training={"max_steps": 1_000_000, "checkpoint_steps": 100})
    job_id = queue.submit(max_attempts=1)
    queue.until_checkpoint(last_attempt, phase="student")
    queue.until_checkpoint(job_id, phase="student")
    trainers = worker.trainers()
    assert len(trainers) == 2
    worker.signal(signal.SIGKILL)
    worker.wait()
    until(lambda: all(map(is_over, trainers)))
    start_worker()
    queue.until_checkpoint(last_attempt, phase="student", attempt=2)
    assert "worker_lost" in str([event.data for event in queue.events(last_attempt, "job.queued")])
    queue.end(last_attempt)
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 0)
    assert queue.student(job_id) == undisturbed


def test_a_drained_worker_checkpoints_requeues_and_exits(
    worker: WorkerProcess, start_worker: Start, queue: Queue, undisturbed: bytes
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.files_of_jobs() == []
    job = queue.job(job_id)
    assert (job.status, job.attempt, job.crashes) == ("queued", 1, 0)
    start_worker()
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 0)
    assert queue.student(job_id) == undisturbed


def test_a_stop_that_signals_every_process_of_a_worker_loses_no_step(
    worker: WorkerProcess, start_worker: Start, queue: Queue, undisturbed: bytes
) -> None:
    job_id = queue.submit(training={"max_steps": LONG_STEPS, "batch_size": 32, "checkpoint_steps": LONG_STEPS})

    def trains() -> bool:
        progress = queue.job(job_id).progress or {}
        return progress.get("phase") == "student" and progress["step"] > 0

    until(trains)
    for process in psutil.Process(worker.process.pid).children(recursive=True):  # as systemd does, and a terminal
        process.terminate()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    stopped_at = queue.events(job_id, "checkpoint")[-1]
    assert (stopped_at.data["phase"], stopped_at.data["step"] > 0) == ("student", True)
    job = queue.job(job_id)
    assert (job.status, job.attempt, job.crashes, job.losses) == ("queued", 1, 0, 0)
    start_worker()
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 0)
    assert queue.student(job_id) == undisturbed


def test_a_worker_whose_lease_was_lost_kills_its_trainer_and_publishes_nothing(worker: WorkerProcess, queue: Queue) -> None:
    job_id = queue.submit(training={"max_steps": 1_000_000})
    until(lambda: (queue.job(job_id).progress or {}).get("phase") == "student")
    trainer = worker.trainers()[0]
    with queue.database.transaction() as session:  # as if another worker had claimed it
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(attempt=Job.attempt + 1, lease_expires_at=text("now() + interval '1 hour'"))
        )
    until(lambda: is_over(trainer))
    job = queue.job(job_id)
    assert (job.status, job.attempt) == ("running", 2)
    with queue.database.transaction() as session:
        assert session.get(Artifact, (job_id, "student/model.safetensors")) is None
        jobs.fail(session, Fence(job_id, 2), FAILURE)


def test_redis_killed_restarted_and_flushed_costs_a_running_job_nothing(
    worker: WorkerProcess, queue: Queue, valkey_server: Valkey, undisturbed: bytes
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    os.kill(valkey_server.pid, signal.SIGKILL)
    valkey_server.stop()
    meanwhile = queue.submit(**SHORT)  # its wake-up is lost
    valkey_server.start()
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (1, 0)
    assert queue.student(job_id) == undisturbed
    queue.until_status(meanwhile, "succeeded")
    assert worker.process.poll() is None
    valkey_server.stop()
    valkey_server.start()
    queue.until_status(queue.submit(**SHORT), "succeeded")
    assert worker.process.poll() is None
    assert "AttributeError" not in worker.log


@pytest.mark.usefixtures("worker")
def test_a_job_finishes_while_redis_is_away(queue: Queue, valkey_server: Valkey) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    valkey_server.stop()
    try:
        queue.until_status(job_id, "succeeded")
    finally:
        valkey_server.start()


@pytest.mark.parametrize("leaving_an_empty_folder", [False, True])
def test_a_store_that_is_away_for_a_while_costs_no_attempt(
    worker: WorkerProcess, queue: Queue, undisturbed: bytes, leaving_an_empty_folder: bool
) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    folder = Path(queue.store_folder)
    known = worker.log.count("waits for the store")
    away = folder.rename(folder.with_name("away"))
    if leaving_an_empty_folder:
        folder.mkdir()
    until(lambda: worker.log.count("waits for the store") > known)
    if leaving_an_empty_folder:
        folder.rmdir()  # it is still empty
    away.rename(folder)
    job = queue.until_status(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (1, 0)
    assert queue.student(job_id) == undisturbed
