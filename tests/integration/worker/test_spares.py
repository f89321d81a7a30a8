"""A spare process takes the part of an assignment, or none is needed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from service.spec import parse_spec
from tests.integration.worker.conftest import long_spec, until
from worker.host import trainer_process
from worker.host.executor import follow
from worker.host.fork_server import Forked, wait_for, warm_up
from worker.host.spares import Spares
from worker.host.trainer_process import TrainerProcess, fork_spare
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Finished


@pytest.fixture(scope="module")
def spares(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spares]:
    warm_up()
    made = Spares(partial(fork_spare, tmp_path_factory.mktemp("scratch")), count=1)
    yield made
    made.close()


def assignment(folder: Path, *, check_only: bool = False) -> Assignment:
    folder.mkdir()
    spec = parse_spec(long_spec() | {"training": {"max_steps": 20, "batch_size": 32}}).model_dump(mode="json")
    return Assignment(job_id="job_test", spec=spec, folder=folder, num_threads=1, check_only=check_only)


def test_a_spare_trains_the_same_student_as_a_process_of_its_own(spares: Spares, tmp_path: Path) -> None:
    students = []
    for number in range(2):
        if number:
            spares.fill()
        given = assignment(tmp_path / str(number))
        trainer = TrainerProcess(given, take_spare=spares.take)
        assert isinstance(follow(trainer).last, Finished)
        students.append((given.folder / RESULT_FOLDER / "student/model.safetensors").read_bytes())
    assert students[0] == students[1]


def test_a_spare_that_was_killed_is_missed_by_nobody(spares: Spares, tmp_path: Path) -> None:
    spares.fill()
    spare = spares.take()
    assert spare is not None
    spare.process.kill()
    spare.process.join()
    trainer = TrainerProcess(assignment(tmp_path / "job", check_only=True), take_spare=lambda: spare)
    assert trainer.pids != [spare.process.pid]
    assert isinstance(follow(trainer).last, Checked)


def test_a_spare_that_stands_still_is_ended_and_missed_by_nobody(
    spares: Spares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spares.fill()
    spare = spares.take()
    assert spare is not None
    assert spare.process.pid is not None
    os.kill(spare.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(trainer_process, "answer_seconds", lambda: 0.1)
    long = {"a long list": "x" * 1_000_000}  # more than a pipe takes that nobody reads
    given = replace(assignment(tmp_path / "job", check_only=True), planned={"job:other": long})
    trainer = TrainerProcess(given, take_spare=lambda: spare)
    assert trainer.pids != [spare.process.pid]
    assert isinstance(follow(trainer).last, Checked)
    wait_for(spare.process)


def test_the_place_of_one_that_is_taken_is_filled_again_by_itself(spares: Spares) -> None:
    spares.fill()
    taken = spares.take()
    assert taken is not None
    assert spares.take() is None
    after = until(spares.take)
    for spare in (taken, after):
        spare.process.kill()


def test_one_whose_rehearsal_finds_no_folder_checks_a_job_all_the_same(tmp_path: Path) -> None:
    spare = fork_spare(tmp_path / "away")
    trainer = TrainerProcess(assignment(tmp_path / "job", check_only=True), take_spare=lambda: spare)
    assert trainer.pids == [spare.process.pid]
    assert isinstance(follow(trainer).last, Checked)


def test_those_that_nobody_took_are_ended_and_not_replaced(tmp_path: Path) -> None:
    forked: list[Forked] = []

    def fork() -> Forked:
        forked.append(fork_spare(tmp_path))
        return forked[-1]

    some = Spares(fork, count=2)
    some.fill()
    taken = some.take()
    assert taken is not None
    some.close()
    some.fill()
    assert some.take() is None
    assert [spare for spare in forked if spare.process.is_alive()] == [taken]
    taken.process.kill()
