"""A job whose loader processes, and whose trainer, are killed ends with the student of one that nothing happened to."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from torch import Tensor

from tests.integration.on_disk import SOURCE, job, shards_of
from tests.integration.test_methods import Recorder, student
from worker.data.augment import View
from worker.data.disk.view_maker import ViewMaker
from worker.host import fork_server
from worker.host.trainer_process import TrainerProcess
from worker.job.attempt import run
from worker.protocol import LOG_FILE, Assignment, CheckpointWritten, Event, Finished


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    fork_server.warm_up()


def test_killed_loaders_and_a_killed_trainer_change_nothing(tmp_path: Path) -> None:
    shards = shards_of("pictures", tmp_path)
    whole, killed = (
        Assignment(
            job_id="job",
            spec=job("pictures", read="shards"),
            folder=tmp_path / name,
            inputs={SOURCE: shards},
            num_threads=1,
            num_loaders=num_loaders,
        )
        for name, num_loaders in (("whole", 0), ("killed", 2))
    )
    for assignment in (whole, killed):
        assignment.folder.mkdir()
    run(whole, Recorder())

    trainer = TrainerProcess(killed)
    loaders: list[psutil.Process] = []
    for number, event in enumerate(checkpoints(trainer)):
        assert isinstance(event, CheckpointWritten)
        loaders = loaders_beside(trainer)
        assert len(loaders) == 2
        if number == 2:
            break
        loaders[number].kill()
    trainer.kill()
    assert trainer.exit_code() == -signal.SIGKILL
    psutil.wait_procs(loaders, timeout=30)
    assert not any(each.is_running() for each in loaders), "loaders end with their trainer"

    trainer = TrainerProcess(killed)
    events = []
    for event in checkpoints(trainer):
        events.append(event)
        if len(events) == 1:
            os.kill(loaders_beside(trainer)[0].pid, signal.SIGKILL)
    assert isinstance(events[-1], Finished)
    assert trainer.exit_code() == 0
    assert student(killed.folder) == student(whole.folder)
    assert "made again by another" in (killed.folder / LOG_FILE).read_text()


def test_two_networks_that_teach_each_other_have_all_their_batches_made_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here: set[int] = set()

    def view(self: ViewMaker, indices: Tensor, epoch: int) -> View:
        read_here.add(epoch)
        return plain(self, indices, epoch)

    plain = ViewMaker.view
    monkeypatch.setattr(ViewMaker, "view", view)
    shards, recorders = shards_of("clips", tmp_path), [Recorder(), Recorder()]
    document = job("clips", read="shards") | {"method": {"name": "deep-mutual"}}
    document["teacher"] |= {"training": None, "features": {"name": "log-mel", "mels": 32}}
    for num_loaders, recorder in enumerate(recorders):
        read_here.clear()
        folder = tmp_path / str(num_loaders)
        folder.mkdir()
        inputs = {SOURCE: shards}
        run(
            Assignment(job_id="job", spec=document, folder=folder, inputs=inputs, num_threads=1, num_loaders=num_loaders),
            recorder,
        )
        assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
        assert (1 in read_here) == (num_loaders == 0), "the second epoch, which trainings alone have"
    assert student(tmp_path / "0") == student(tmp_path / "1")


def checkpoints(trainer: TrainerProcess) -> Iterator[Event]:
    """Its checkpoints, and its last event."""
    while not trainer.ended:
        for event in trainer.events(timeout_seconds=1):
            if isinstance(event, CheckpointWritten | Finished):
                yield event


def loaders_beside(trainer: TrainerProcess) -> list[psutil.Process]:
    """The processes that the fork server has beside the trainer."""
    server = psutil.Process(trainer.pids[0]).parent()
    assert server is not None
    return [each for each in server.children() if each.pid not in trainer.pids]
