"""A small team with jobs in any state, and every write of a job as one word."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service import jobs
from service.database import Database
from service.errors import JobFailure
from service.ids import new_id
from service.jobs import Fence
from service.lifecycle import Outcome, Status
from service.scheduling import Device, Offer, claim
from service.spec import parse_spec
from service.store import StoredFile
from service.tables import Job, JobEvent, Model, Table, User, Worker

T = TypeVar("T")
Write = Callable[[Session, Fence], Outcome]
SPEC: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 8}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
}
FAILURE = JobFailure(code="trainer_crashed", message="the trainer ended by SIGSEGV", hint="look at the log")
ALREADY, NOT_ALLOWED = Outcome.ALREADY, Outcome.NOT_ALLOWED
APPLIED, LEASE_LOST = Outcome.APPLIED, Outcome.LEASE_LOST


class Team:
    """Two people and one worker, and the jobs between them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.transaction() as session:
            session.add_all([User(id="user_ana", name="ana"), User(id="user_ben", name="ben")])
            self.add_worker(session, "worker_1")

    @staticmethod
    def add_worker(session: Session, worker_id: str, **changes: Any) -> None:
        devices = [{"name": "cpu:0", "kind": "cpu", "memory_gib": None}]
        values = {"host": "here", "pid": 1, "pool": "default", "slots": 1, "devices": devices} | changes
        session.add(Worker(id=worker_id, **values))

    def submit(self, *, owner: str = "ana", preflight: bool = False, **changes: Any) -> str:
        spec = parse_spec(SPEC | changes)
        return self.do(lambda session: jobs.submit(session, owner_id=f"user_{owner}", spec=spec, preflight=preflight).id)

    def run(self, *, lease_seconds: float = 300, pool: str = "default") -> Fence:
        """Claims the next job."""
        found = self.do(lambda session: claim(session, Offer("worker_1", pool, (Device("cpu:0"),)), lease_seconds=lease_seconds))
        assert found is not None
        return found.fence

    def running(self, **changes: Any) -> Fence:
        """A new job that runs."""
        job_id = self.submit(**changes)
        fence = self.run()
        assert fence.job_id == job_id
        return fence

    def bring_to(self, status: Status) -> Fence:
        """A job in that state, with the fence of its last attempt."""
        match status:
            case Status.CHECKING:
                return Fence(self.submit(preflight=True), 0)
            case Status.WAITING:
                needed = self.bring_to(Status.PAUSED)
                return Fence(self.submit(depends_on=[needed.job_id]), 0)
            case Status.QUEUED:
                return self.bring_by(crash)
            case Status.RUNNING:
                return self.running()
            case Status.PAUSED:
                return self.bring_by(stop_for("pause"))
            case Status.SUCCEEDED:
                return self.bring_by(succeed)
            case Status.FAILED:
                return self.bring_by(fail)
            case Status.CANCELLED:
                return self.bring_by(stop_for("cancel"))

    def bring_by(self, write: Write) -> Fence:
        fence = self.running()
        assert self.do(write, fence) is APPLIED
        return fence

    def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """In a transaction of its own."""
        with self.database.transaction() as session:
            return work(session, *arguments)

    def job(self, job_id: str) -> Job:
        return self.do(jobs.get, job_id)

    def status(self, job_id: str) -> str:
        return self.job(job_id).status

    def events(self, job_id: str) -> list[JobEvent]:
        query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
        return self.do(lambda session: list(session.scalars(query)))

    def types(self, job_id: str) -> list[str]:
        return [event.type for event in self.events(job_id)]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        with self.database.engine.connect() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
                for table in Table.metadata.sorted_tables
            }


@pytest.fixture
def team(database: Database) -> Team:
    return Team(database)


def cancel(session: Session, fence: Fence) -> Outcome:
    return jobs.request_cancel(session, fence.job_id, keep="best")[1]


def pause(session: Session, fence: Fence) -> Outcome:
    return jobs.request_pause(session, fence.job_id)[1]


def resume(session: Session, fence: Fence) -> Outcome:
    return jobs.resume(session, fence.job_id)[1]


def renew(session: Session, fence: Fence) -> Outcome:
    return APPLIED if jobs.renew_lease(session, fence, lease_seconds=300) else LEASE_LOST


def progress(session: Session, fence: Fence) -> Outcome:
    return jobs.record_progress(session, fence, {"phase": "student", "step": 7})


def milestone(session: Session, fence: Fence) -> Outcome:
    return jobs.record_progress(session, fence, {"phase": "student", "step": 7}, milestone="step 7")


def metrics(session: Session, fence: Fence) -> Outcome:
    return jobs.record_metrics(session, fence, {"student/train_loss": [(7, 0.5)]})


def log(session: Session, fence: Fence) -> Outcome:
    return jobs.append_log(session, fence, "a line\n")


def checkpoint(session: Session, fence: Fence) -> Outcome:
    return jobs.record_checkpoint(session, fence, stored("checkpoint.safetensors"), phase="student", step=7)[0]


def succeed(session: Session, fence: Fence, *, names: tuple[str, ...] = ("report.json",)) -> Outcome:
    files = [stored(name) for name in names]
    return jobs.succeed(session, fence, result={"accuracy": 0.9}, files=files, models=[student(session, fence)])


def student(session: Session, fence: Fence) -> Model:
    job = session.get(Job, fence.job_id)
    return Model(
        id=new_id("model"), owner_id=job.owner_id if job else "user_ana", name="student", task="image-classification",
        job_id=fence.job_id, classes=["0", "1"], input_shape=[1, 8, 8], files=[],
    )  # fmt: skip


def fail(session: Session, fence: Fence) -> Outcome:
    return jobs.fail(session, fence, FAILURE, files=[stored("log.txt")])


def crash(session: Session, fence: Fence) -> Outcome:
    return jobs.crash(session, fence, FAILURE, files=[stored("log.txt")])


def lose(session: Session, fence: Fence) -> Outcome:
    return jobs.lose(session, fence, FAILURE, files=[stored("log.txt")])


def stop_for(reason: str) -> Write:
    def stop(session: Session, fence: Fence) -> Outcome:
        """What a person asks for and the trainer then does; nobody asks for a drain."""
        if reason != "drain":
            held = update(Job).where(Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == "running")
            session.execute(held.values(stop_requested=reason))
        return jobs.settle_stopped(session, fence, reason=reason, files=[stored("log.txt")])

    return stop


def stored(name: str, *, path: str | None = None) -> StoredFile:
    return StoredFile(name=name, path=path or f"jobs/x/{name}", size=3, sha256="00", media_type="text/plain")


FENCED: dict[str, Write] = {
    "renew": renew,
    "progress": progress,
    "milestone": milestone,
    "metrics": metrics,
    "log": log,
    "checkpoint": checkpoint,
    "succeed": succeed,
    "fail": fail,
    "crash": crash,
    "lose": lose,
    "cancelled": stop_for("cancel"),
    "paused": stop_for("pause"),
    "drained": stop_for("drain"),
}
ENDS_ATTEMPT = {
    "succeed": "succeeded",
    "fail": "failed",
    "crash": "queued",
    "lose": "queued",
    "cancelled": "cancelled",
    "paused": "paused",
    "drained": "queued",
}
"""The writes that end an attempt, and the state that each leads to."""
PEOPLES: dict[str, Write] = {"cancel": cancel, "pause": pause, "resume": resume}
