"""A training from shards needs no more memory for more data: a control group holds it to that, or without one its own pages."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.formats import write_shards
from service.formats.shards.mapped import map_shards
from tests.control_groups import ControlGroup, control_group
from tests.integration.on_disk import SOURCE, job, report_of
from tests.unit.formats.files import write_npz
from worker.host import fork_server
from worker.host.trainer_process import TrainerProcess
from worker.protocol import Assignment, Event, Finished

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE * 4
ROOM = 32 * 2**20
"""What a limit leaves beyond the memory of a training on a few images."""
FEW, MANY = 2_560, 4 * ROOM // IMAGE_BYTES


@dataclass(frozen=True)
class Attempt:
    """One that has ended."""

    events: list[Event]
    exit_code: int
    peak_bytes: int
    """The most memory that it and its loader had and that no file has."""


def test_a_set_four_times_as_large_as_the_memory_there_is_is_trained_on(tmp_path: Path) -> None:
    few, many = (shards_of_images(tmp_path / str(count), count) for count in (FEW, MANY))
    fork_server.warm_up()
    with control_group() as group, nullcontext() if group is None else group.holding(server_pid()):
        limit = attempt(few, tmp_path / "few", read="shards", group=group).peak_bytes + ROOM
        if group is not None:
            group.limit(limit)

        from_shards = attempt(many, tmp_path / "shards", read="auto" if group else "shards", group=group)
        assert isinstance(from_shards.events[-1], Finished), from_shards.events[-1]
        assert report_of(tmp_path / "shards")["data"]["read"].startswith("from shards")
        assert from_shards.peak_bytes < limit

        in_memory = attempt(many, tmp_path / "memory", read="memory", group=group)
        if group is not None:
            assert in_memory.exit_code == -signal.SIGKILL, "or else the limit proves nothing"
        else:
            assert in_memory.peak_bytes > limit + 3 * ROOM
            pytest.skip("no control group can be made here: the trainers' own pages were measured instead, and stay within it")


def attempt(shards: Path, folder: Path, *, read: str, group: ControlGroup | None) -> Attempt:
    """Trains for an epoch with a loader process."""
    folder.mkdir()
    document = job("arrays", read=read, validation_fraction=0.1, test_fraction=0.1)
    for training in (document["training"], document["teacher"]["training"]):
        training |= {"epochs": 1, "batch_size": 64, "checkpoint_steps": None}
    inputs = {SOURCE: shards}
    trainer = TrainerProcess(Assignment(job_id="job", spec=document, folder=folder, num_threads=1, inputs=inputs, num_loaders=1))
    with peak_of(lambda: own_bytes() if group is None else group.own_bytes) as peak:
        events: list[Event] = []
        while not trainer.ended:
            events += trainer.events(timeout_seconds=1)
        print(
            read,
            peak[0] >> 20,
            trainer.exit_code(),
            __import__("time").time(),
            group._folder.joinpath("memory.stat").read_text() if group else "",
        )
        return Attempt(events, trainer.exit_code(), peak[0])


@contextmanager
def peak_of(measure: Callable[[], int]) -> Iterator[list[int]]:
    """A list whose one number is the highest that is measured meanwhile."""
    peak, is_over = [0], threading.Event()

    def look() -> None:
        while not is_over.wait(0.01):
            peak[0] = max(peak[0], measure())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peak
    finally:
        is_over.set()
        looking.join()


def own_bytes() -> int:
    """Memory of the trainer and its loader that is no file's: what the kernel cannot take back."""
    found = 0
    for process in psutil.Process(server_pid()).children():
        with suppress(OSError):  # it has ended
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            found += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return found


def server_pid() -> int:
    """Of the fork server, which forks trainers and loaders."""
    pid: int = fork_server._server._forkserver_pid
    return pid


def shards_of_images(folder: Path, count: int) -> Path:
    """Floating-point images on disk, of which nothing is left in the memory of files."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 4, (count, 3, SIDE, SIDE)).astype(np.float32) / 4
    file = write_npz(folder / "set.npz", image=images, label=np.arange(count) % 3)
    write_shards(file, folder / "shards", filename=file.name, task="image-classification", target_columns=["label"])
    map_shards(folder / "shards")
    file.unlink()
    for shard in (folder / "shards").iterdir():
        with shard.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return folder / "shards"
