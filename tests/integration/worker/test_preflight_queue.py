"""A worker's checks on a real database: what comes of each, and what stops one."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from service import jobs, previews
from service.database import Database
from service.lifecycle import Status
from service.preflight import MAX_CHECKS
from service.settings import Settings
from service.spec import parse_spec
from service.store import Store
from service.tables import Job
from tests.integration.api.test_submission_statements import stored_dataset
from tests.integration.jobs.conftest import SPEC, Team
from tests.integration.worker.conftest import until
from tests.trainers import open_files
from worker.host.executor import LocalExecutor
from worker.host.fork_server import warm_up
from worker.host.miniature import MiniatureRunner
from worker.host.preflight import Checker

LONG: dict[str, Any] = {
    "teacher": {"architecture": {"name": "resnet110"}},
    "student": {"architecture": {"name": "resnet110"}},
    "method": {"name": "born-again", "generations": 10},
}
"""Takes a check many seconds."""
UNFIT: dict[str, Any] = {"method": {"name": "fitnet", "layers": {"student": ["nowhere"], "teacher": ["features"]}}}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


@dataclass
class Bench:
    """A team's jobs and one worker that checks them."""

    team: Team
    store: Store
    scratch: Path
    settings: Settings
    passed: list[str] = field(default_factory=list)
    leaving: threading.Event = field(default_factory=threading.Event)

    def checker(self, **settings: Any) -> Checker:
        chosen, database, leaving = self.settings.model_copy(update=settings), self.team.database, self.leaving.is_set
        runner = MiniatureRunner(
            executor=LocalExecutor(), database=database, store=self.store, settings=chosen, scratch=self.scratch, leaving=leaving
        )
        return Checker(
            "worker_1", "default", runner=runner, database=database, settings=chosen, leaving=leaving, passed=self.passed.append
        )

    def check(self, **changes: Any) -> Job:
        """A job after one round of checks."""
        job_id = self.team.submit(preflight=True, **changes)
        self.checker().work()
        return self.team.job(job_id)

    def while_checked(self, act: Callable[[str], None]) -> Job:
        """A long check during which something happens, once its process is there."""
        job_id = self.team.submit(preflight=True, **LONG)
        work = threading.Thread(target=self.checker().work)
        work.start()
        while not list(self.scratch.glob("*/log.txt")):
            assert work.is_alive()
        act(job_id)
        work.join()
        assert not list(self.scratch.iterdir())
        return self.team.job(job_id)


@pytest.fixture
def bench(database: Database, store: Store, tmp_path: Path) -> Bench:
    (tmp_path / "scratch").mkdir()
    return Bench(Team(database), store, tmp_path / "scratch", Settings.model_validate({"heartbeat_seconds": 0.2}))


def test_what_trains_goes_to_the_queue_with_its_estimate_and_what_does_not_fails(bench: Bench) -> None:
    refused = bench.team.submit(preflight=True, **UNFIT)
    passed = bench.check()
    assert (passed.status, bench.passed) == (Status.QUEUED, ["default"])
    assert passed.estimate is not None
    assert passed.estimate["steps"]["student"] > 0
    made = bench.team.do(partial(previews.find, preview_id=passed.estimate["preview_id"])).result
    assert made is not None
    assert {role: len(samples) for role, samples in made["samples"].items()} == {"teacher": 2, "student": 2}
    error = bench.team.job(refused).error
    assert error is not None
    assert (error["code"], error["details"]["pointer"]) == ("preflight_failed", "/method")


def test_a_teacher_that_is_not_trained_yet_is_tried_as_its_job_would_make_it(bench: Bench) -> None:
    teacher = bench.team.submit(student={"architecture": {"name": "small-cnn", "width": 16}})
    job = bench.check(teacher={"source": f"job:{teacher}"})
    assert (job.status, job.status_reason) == (Status.WAITING, f"waits for {teacher}")
    assert job.estimate is not None
    assert job.estimate["parameters"]["teacher"] > job.estimate["parameters"]["student"]
    assert bench.passed == []


def test_a_dataset_whose_bytes_are_gone_fails_the_job(bench: Bench) -> None:
    dataset_id = stored_dataset(bench.team.database, "user_ana")  # a row alone
    job = bench.check(dataset={"source": f"dataset:{dataset_id}"})
    assert job.error is not None
    assert job.error["code"] == "input_unavailable"


def test_a_dataset_whose_row_is_gone_fails_the_job(bench: Bench) -> None:
    job_id = bench.team.submit(preflight=True)
    gone = SPEC | {"dataset": {"source": f"dataset:ds_{'0' * 26}"}}
    spec = parse_spec(gone).model_dump(mode="json")
    bench.team.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(spec=spec)))
    bench.checker().work()
    error = bench.team.job(job_id).error
    assert error is not None
    assert error["code"] == "input_unavailable"


def test_a_check_that_takes_too_long_is_tried_again_later_and_then_left_out(bench: Bench) -> None:
    job_id = bench.team.submit(preflight=True)
    for _ in range(MAX_CHECKS):
        assert bench.team.status(job_id) == Status.CHECKING
        bench.checker(preflight_seconds=0.01).work()
    job = bench.team.job(job_id)
    assert (job.status, job.estimate, bench.passed) == (Status.QUEUED, None, ["default"])
    assert "its check took more than 0.01 s; it goes on unchecked" in [event.message for event in bench.team.events(job_id)]


def test_a_host_that_makes_no_folder_holds_no_check(bench: Bench) -> None:
    bench.scratch.rmdir()
    bench.scratch.touch()
    job_id = bench.team.submit(preflight=True)
    work = threading.Thread(target=bench.checker().work)
    work.start()
    try:
        until(lambda: bench.team.job(job_id).failed_checks == 1)
    finally:
        bench.leaving.set()
        work.join()


def test_a_check_whose_process_is_killed_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def kill(job_id: str) -> None:
        log = next(bench.scratch.glob("*/log.txt"))
        for process in psutil.Process().children(recursive=True):
            if str(log) in open_files(process):
                if sys.platform == "linux":
                    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n", "no server is to die before it"
                process.kill()

    job = bench.while_checked(kill)
    assert job.status_reason == "waits for its check: its check ended without a result, with exit code -9"
    assert job.id in caplog.text


def test_a_worker_that_drains_gives_its_check_up(bench: Bench) -> None:
    job = bench.while_checked(lambda job_id: bench.leaving.set())
    assert (job.status, job.status_reason) == (Status.CHECKING, "waits for its check: the worker that checked it drains")


def test_a_job_that_is_cancelled_ends_its_check_and_the_next_follows(bench: Bench) -> None:
    following: list[str] = []

    def cancel(job_id: str) -> None:
        following.append(bench.team.submit(preflight=True))
        bench.team.do(lambda session: jobs.request_cancel(session, job_id, keep="none"))

    assert bench.while_checked(cancel).status == Status.CANCELLED
    assert bench.team.status(following[0]) == Status.QUEUED


def test_a_check_that_fails_by_itself_refuses_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    job_id = bench.team.submit(preflight=True)
    not_a_spec = update(Job).where(Job.id == job_id).values(spec={"task": "of an older version"})
    bench.team.do(lambda session: session.execute(not_a_spec))
    bench.checker().work()
    job = bench.team.job(job_id)
    assert job.status == Status.CHECKING
    assert job.status_reason.startswith("waits for its check: the check itself failed: ")
    assert f"the check of {job_id} failed" in caplog.text
    assert not list(bench.scratch.iterdir())
