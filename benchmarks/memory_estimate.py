"""The memory that a job's check expects, against what the job takes on a GPU: ``python -m benchmarks.memory_estimate``.

Each job is checked on the CPU, as before it waits in the queue, and then run on the first GPU; ``nvidia-smi`` is asked all the
while how much of the device is in use, all processes together, so nothing else should run there. What it took beyond what was in
use before includes CUDA's context and what PyTorch's allocator holds without using it. The ratio is the estimate over that.
"""

import argparse
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.spec import parse_spec
from service.spec.estimate import Estimate
from worker.host.executor import LocalExecutor, follow
from worker.host.fork_server import warm_up
from worker.preflight.check import check
from worker.protocol import Assignment, Checked, Event, Failed, HostDevices, StopRequest

DIGITS = {"task": "image-classification", "dataset": {"source": "builtin:digits"}, "resources": {"gpus": 1}}
SMALL: Mapping[str, Any] = {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 2}}
VIT = {"patch_size": 1, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
RESNET32X4: Mapping[str, Any] = {"architecture": {"name": "resnet32x4"}, "training": {"max_steps": 4, "batch_size": 256}}
JOBS: Mapping[str, dict[str, Any]] = {
    "resnet110, batch 1,024": {"teacher": SMALL, "student": {"architecture": {"name": "resnet110"}}, "batch_size": 1024},
    "wrn-40-2 from resnet32x4, batch 512": {
        "teacher": RESNET32X4,
        "student": {"architecture": {"name": "wrn-40-2"}},
        "method": {"name": "attention-transfer"},
        "batch_size": 512,
    },
    "ViT-Base of 65 patches, batch 256": {
        "teacher": SMALL,
        "student": {"architecture": {"name": "transformers", "model_type": "vit", "config": VIT}},
        "batch_size": 256,
    },
    "vgg8 from vgg13, augmented, batch 1,024": {
        "teacher": {"architecture": {"name": "vgg13"}, "training": {"max_steps": 4, "batch_size": 1024}},
        "student": {"architecture": {"name": "vgg8"}},
        "augment": ["crop", "flip"],
        "batch_size": 1024,
    },
}


def main() -> None:
    """Prints both figures and their ratio for each job."""
    parser = argparse.ArgumentParser(description="What a job's check expects of memory, against what the job takes.")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    warm_up()
    print(f"{'job':50} {'expected':>10} {'taken':>10} {'ratio':>6}")
    for name, parts in JOBS.items():
        spec = _spec(parts, num_steps=options.steps)
        expected, taken = _expected_gib(spec), _taken_gib(spec)
        print(f"{name:50} {expected:6.2f} GiB {taken:6.2f} GiB {expected / taken:6.2f}")


def _spec(parts: Mapping[str, Any], *, num_steps: int) -> dict[str, Any]:
    rest = dict(parts)
    training = {name: rest.pop(name) for name in ("batch_size", "augment") if name in rest}
    return parse_spec({**DIGITS, **rest, "training": {"max_steps": num_steps, **training}}).model_dump(mode="json")


def _expected_gib(spec: dict[str, Any]) -> float:
    with TemporaryDirectory() as folder:
        events = _Events()
        check(Assignment("benchmark", spec, Path(folder), check_only=True), events)
    if not isinstance(events.last, Checked):
        raise RuntimeError(f"the check ended with {events.last}")
    memory = Estimate.model_validate(events.last.estimate).memory_gib
    if memory is None:
        raise RuntimeError("the check could not tell the memory")
    return memory


class _Events:
    """Hears the check's events."""

    last: Event | None = None

    def emit(self, event: Event) -> None:
        self.last = event

    def stop_request(self) -> StopRequest | None:
        return None


def _taken_gib(spec: dict[str, Any]) -> float:
    before = _in_use_gib()
    with TemporaryDirectory() as folder, _watching() as seen:
        placement = (HostDevices(devices=("cuda:0",)),)
        ending = follow(LocalExecutor().start(Assignment("benchmark", spec, Path(folder), placement=placement)))
        if isinstance(ending.last, Failed):
            raise RuntimeError(ending.last.message)
    return max(seen) - before


@contextmanager
def _watching() -> Iterator[list[float]]:
    seen: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(_in_use_gib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _in_use_gib() -> float:
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout) / 1024


if __name__ == "__main__":
    main()
