"""A job on two CPU slots against the same on one: ``python -m benchmarks.data_parallel``.

Two ranks of one thread each, which share every batch, and one process of two threads do the same steps with the same losses on
the same two cores. They take turns, so that a busy moment of the machine falls on both, and the medians of the student's
training are compared. The ratio is the ranks' seconds over the one process's: what it costs to gather outputs, to bring batch
norm's statistics and gradients together and to agree after each step, less what two processes gain on two threads. Of GPUs it
says nothing: their ranks exchange by NCCL what they compute many times faster.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.spec import parse_spec
from worker.host.executor import LocalExecutor, follow
from worker.host.fork_server import warm_up
from worker.protocol import Assignment, Event, Failed, HostDevices, Progress

CONTESTANTS: Mapping[str, tuple[str, ...]] = {"one process of two threads": ("cpu",), "two ranks of one thread": ("cpu", "cpu")}


def main() -> None:
    """Prints both medians and their ratio."""
    parser = argparse.ArgumentParser(description="Two ranks against one process, on two CPU cores.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--student", default="wrn-16-2", help="the name of an architecture")
    options = parser.parse_args()
    warm_up()
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(options.rounds):
        for name, devices in CONTESTANTS.items():
            spec = _spec(options.student, num_steps=options.steps, batch_size=options.batch_size, num_devices=len(devices))
            seconds[name].append(_training_seconds(spec, devices))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s for {options.steps - 1} steps")
    one, two = medians.values()
    print(f"ratio: {two / one:.2f}")


def _spec(student: str, *, num_steps: int, batch_size: int, num_devices: int) -> dict[str, Any]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 1}},
        "student": {"architecture": {"name": student}},
        "training": {"max_steps": num_steps, "batch_size": batch_size},
        "resources": {"cpu_slots": num_devices},
    }
    return parse_spec(document).model_dump(mode="json")


def _training_seconds(spec: dict[str, Any], devices: tuple[str, ...]) -> float:
    """From the end of the student's first step to the end of its last, its evaluations included."""
    times: list[float] = []
    with TemporaryDirectory() as folder:
        placement = (HostDevices(devices=devices),)
        trainer = LocalExecutor().start(
            Assignment(job_id="benchmark", spec=spec, folder=Path(folder), placement=placement, num_threads=2)
        )

        def take_time(event: Event) -> None:
            if isinstance(event, Failed):
                raise RuntimeError(event.message)
            if isinstance(event, Progress) and event.phase == "student" and event.step in (1, event.total_steps):
                times.append(time.perf_counter())
                if event.step == event.total_steps:
                    trainer.kill()

        follow(trainer, on_event=take_time)
    return times[-1] - times[0]


if __name__ == "__main__":
    main()
