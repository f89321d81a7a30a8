"""A job whose loader processes, and whose trainer, are killed ends with the student of one that nothing happened to."""

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from service.formats import write_shards
from service.formats.shards.mapped import map_shards
from tests.integration.on_disk import SOURCE, job, shards_of
from tests.integration.test_methods import Recorder, student
from tests.unit.formats.files import write_npz
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


@pytest.mark.exhaustive
@pytest.mark.parametrize("num_loaders", [0, 1])
def test_a_training_from_shards_grows_not_with_its_data(tmp_path: Path, num_loaders: int) -> None:
    small, large = (tmp_path / name for name in ("small", "large"))
    for folder, count in ((small, 600), (large, 2_400)):
        folder.mkdir()
        large_images(folder, count)
    grown = {read: peak_bytes(large, read, num_loaders) - peak_bytes(small, read, num_loaders) for read in ("shards", "memory")}
    more = 1_800 * IMAGE_BYTES
    assert grown["shards"] < more / 2
    assert grown["memory"] > more, "or else this measures nothing"


SIDE = 96
IMAGE_BYTES = 3 * SIDE * SIDE * 4


def large_images(folder: Path, count: int) -> None:
    """Floating-point images, of which a few hundred take as much memory as a trainer."""
    images = np.random.default_rng(0).random((count, 3, SIDE, SIDE), dtype=np.float32)
    file = write_npz(folder / "set.npz", image=images, label=np.arange(count) % 3)
    write_shards(file, folder / "shards", filename=file.name, task="image-classification", target_columns=["label"])
    map_shards(folder / "shards")


def peak_bytes(folder: Path, read: str, num_loaders: int) -> int:
    """The most memory of its own that a trainer has on these data."""
    forked = fork_server.fork(_train_and_measure, folder, read, num_loaders)
    found: int = forked.pipe.recv()
    fork_server.wait_for(forked.process)
    return found


def _train_and_measure(pipe: Connection, folder: Path, read: str, num_loaders: int) -> None:
    torch.set_num_threads(1)
    peak, is_over = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not is_over.wait(0.002):
            peak = max(peak, own_bytes())

    threading.Thread(target=look, daemon=True).start()
    document = job("arrays", read=read, validation_fraction=0.02, test_fraction=0.02)
    for training in (document["training"], document["teacher"]["training"]):
        training |= {"epochs": None, "max_steps": 3, "batch_size": 16, "checkpoint_steps": None}
    out = folder / f"{read}-{num_loaders}"
    out.mkdir()
    recorder, inputs = Recorder(), {SOURCE: folder / "shards"}
    run(
        Assignment(job_id="job", spec=document, folder=out, num_threads=1, inputs=inputs, num_loaders=num_loaders),
        recorder,
    )
    is_over.set()
    assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
    pipe.send(peak)


def own_bytes() -> int:
    """Memory of this process that is no file's: what the kernel cannot take back."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


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
