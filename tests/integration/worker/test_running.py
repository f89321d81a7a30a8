"""A worker, left in peace: a job becomes a student, and what is asked of a running job happens."""

from pathlib import Path

import pytest
import redis
from sqlalchemy import select

from service import jobs
from service.embedded.servers import Valkey
from service.tables import Artifact, Model
from tests.integration.worker.conftest import SHORT, SHORT_STEPS, Queue, WorkerProcess, until

pytestmark = pytest.mark.usefixtures("worker")


def test_a_queued_job_becomes_a_student_with_its_artifacts(worker: WorkerProcess, queue: Queue, undisturbed: bytes) -> None:
    job_id = queue.submit()
    job = queue.until_status(job_id, "succeeded")
    assert queue.student(job_id) == undisturbed
    assert job.attempt == 1
    assert job.crashes == 0
    assert job.result is not None
    with queue.database.transaction() as session:
        names = set(session.scalars(select(Artifact.name).where(Artifact.job_id == job_id)))
        models = session.scalars(select(Model).where(Model.job_id == job_id).order_by(Model.part)).all()
    assert {
        "student/config.json",
        "student/labels.json",
        "report.json",
        "report.html",
        "README.md",
        "spec.json",
        "log.txt",
    } <= names
    assert [model.part for model in models] == ["student", "teacher"]
    assert all(model.classes == list("0123456789") for model in models)
    assert [event.type for event in queue.events(job_id, "job.succeeded")] == ["job.succeeded"]
    assert worker.process.poll() is None
    assert list(worker.folder.rglob("teacher-cache/*/*/outputs.json")), "what the teacher said outlives the job"


@pytest.mark.parametrize("end", ["succeeded", "cancelled"])
def test_a_job_that_is_over_leaves_no_checkpoint_behind(queue: Queue, end: str) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    if end == "cancelled":
        with queue.database.transaction() as session:
            jobs.request_cancel(session, job_id, keep="none")
    queue.until_status(job_id, end)

    def forgotten() -> bool:
        with queue.database.transaction() as session:
            return session.get(Artifact, (job_id, "checkpoint.safetensors")) is None

    until(forgotten)
    assert not list(Path(queue.store_folder).rglob("*checkpoint*"))


def test_progress_and_log_tell_what_was_done_in_its_order_by_a_worker_that_never_loads_torch(
    worker: WorkerProcess, queue: Queue
) -> None:
    job_id = queue.submit(**SHORT)
    job = queue.until_status(job_id, "succeeded")
    told = [event.data for event in queue.events(job_id, "progress")]
    phases = list(dict.fromkeys(progress["phase"] for progress in told))
    assert phases == ["teacher", "cache", "student", "evaluation", "export"]
    assert [progress["phase"] for progress in told] == sorted((progress["phase"] for progress in told), key=phases.index)
    assert all(progress["message"] for progress in told)
    assert {(progress["phase"], progress["step"]) for progress in told} >= {("teacher", 100), ("student", SHORT_STEPS)}
    assert job.progress is not None
    assert (job.progress["phase"], job.progress["fraction"]) == ("export", 1.0)

    with queue.database.transaction() as session:
        text = jobs.log_text(session, job_id)
        artifact = session.get_one(Artifact, (job_id, "log.txt"))
    assert "Training the student, small-cnn of" in text
    assert b"".join(queue.store.stream(artifact.path)).decode() == text, "the log is an artifact"

    maps = Path(f"/proc/{worker.process.pid}/maps")
    assert not maps.exists() or "libtorch" not in maps.read_text()


def test_two_jobs_share_a_worker_of_two_slots_and_leave_nothing_unacknowledged(queue: Queue, valkey_server: Valkey) -> None:
    first, second = queue.submit(), queue.submit()
    until(lambda: queue.job(first).status == queue.job(second).status == "running")
    with redis.Redis.from_url(valkey_server.url) as client:
        assert client.hlen("unacked") == 0
    queue.until_status(first, "succeeded")
    queue.until_status(second, "succeeded")


@pytest.mark.parametrize("keep", ["last", "none"])
def test_a_cancel_reaches_a_running_job_and_keeps_what_was_asked_for(worker: WorkerProcess, queue: Queue, keep: str) -> None:
    job_id = queue.submit(training={"max_steps": 1_000_000})
    until(lambda: (queue.job(job_id).progress or {}).get("phase") == "student")
    with queue.database.transaction() as session:
        jobs.request_cancel(session, job_id, keep=keep)
    queue.until_status(job_id, "cancelled")
    with queue.database.transaction() as session:
        names = set(session.scalars(select(Artifact.name).where(Artifact.job_id == job_id, Artifact.kind == "result")))
        model = session.scalar(select(Model).where(Model.job_id == job_id))
    assert ("student/model.safetensors" in names) == (keep == "last")
    assert (model is not None) == (keep == "last"), "what is kept may teach"
    until(lambda: not worker.trainers())


def test_a_paused_job_goes_on_to_the_same_student(queue: Queue, undisturbed: bytes) -> None:
    job_id = queue.submit()
    queue.until_checkpoint(job_id, phase="student")
    with queue.database.transaction() as session:
        jobs.request_pause(session, job_id)
    queue.until_status(job_id, "paused")
    with queue.database.transaction() as session:
        jobs.resume(session, job_id)
    queue.broker.wake("default")
    job = queue.until_status(job_id, "succeeded")
    assert job.crashes == 0
    assert job.attempt == 2
    assert queue.student(job_id) == undisturbed


def test_a_job_over_its_time_fails_and_keeps_its_checkpoint(queue: Queue) -> None:
    job_id = queue.submit(
        training={"max_steps": 1_000_000, "batch_size": 32, "checkpoint_steps": 70}, resources={"max_runtime_seconds": 3600}
    )
    queue.until_checkpoint(job_id, phase="student")
    with queue.database.transaction() as session:
        jobs.request_pause(session, job_id)
    queue.until_status(job_id, "paused")
    with queue.database.transaction() as session:
        jobs.get(session, job_id, lock=True).run_seconds = 3600.0
        jobs.resume(session, job_id)
    queue.broker.wake("default")
    job = queue.until_status(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "time_limit"
    with queue.database.transaction() as session:
        assert session.get(Artifact, (job_id, "checkpoint.safetensors")) is not None
        assert session.get(Artifact, (job_id, "student/model.safetensors")) is not None


def test_a_loss_that_is_not_finite_fails_the_job_at_once_and_names_the_step(queue: Queue) -> None:
    job_id = queue.submit(
        training={"max_steps": 500, "optimizer": {"name": "sgd", "learning_rate": 1000.0}, "schedule": {"name": "constant"}},
        method={"name": "soft-targets", "divergence": "mse"},
    )
    job = queue.until_status(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "non_finite_loss"
    assert "step" in job.error["message"]
    assert job.attempt == 1, "the job itself is at fault: another attempt would not help"


def test_what_a_job_left_its_student_and_its_teacher_teaches_the_next_one(queue: Queue) -> None:
    first = queue.submit(**SHORT)
    small = {"architecture": {"name": "small-cnn", "width": 2}}
    sources = {"student": f"job:{first}", "teacher": f"job:{first}/teacher"}
    following = {part: queue.submit(**SHORT, teacher={"source": source}, student=small) for part, source in sources.items()}
    assert {queue.job(job_id).status for job_id in following.values()} == {"waiting"}
    left = queue.until_status(first, "succeeded").result
    assert left is not None
    for part, job_id in following.items():
        job = queue.until_status(job_id, "succeeded")
        assert job.result is not None
        assert job.result["teacher"]["parameters"] == left[part]["parameters"]


def test_several_students_teach_the_next_job_together(queue: Queue) -> None:
    teachers = [queue.submit(**SHORT, student={"architecture": {"name": "small-cnn", "width": width}}) for width in (3, 5)]
    last = queue.submit(**SHORT, teacher=[{"source": f"job:{job_id}"} for job_id in teachers])
    for job_id in teachers:
        queue.until_status(job_id, "succeeded")
    job = queue.until_status(last, "succeeded")
    sizes = [queue.job(job_id).result["student"]["parameters"] for job_id in teachers]  # type: ignore[index]
    assert job.result is not None
    assert job.result["teacher"]["parameters"] == sum(sizes)
