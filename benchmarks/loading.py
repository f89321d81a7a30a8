"""Samples from shards on disk, made by loader processes: ``python -m benchmarks.loading``.

*Loading*: photographs as JPEG files, resized and cut to 224x224, in batches of 32. The loaders beside torch's DataLoader over
Pillow with as many workers, both started and warm. *Training*: a network whose steps take longer than its batches, on the same
images in memory and from shards. They take turns, so that a busy moment of the machine falls on both, and the medians are
compared.
"""

import argparse
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from worker.host.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # as trainers run; before torch is imported

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.image_loading import SIDE, photographs
from service.formats import write_shards
from service.formats.shards.mapped import map_shards
from worker.data.disk.stored import Reading, StoredInputs, stored_splits
from worker.data.images.canvas import Canvas
from worker.data.images.pixels import PixelPreprocessing
from worker.data.samples import Samples
from worker.distributed.rng import epoch_order

CPU = torch.device("cpu")
BATCH = 32
READS = PixelPreprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, rescale_factor=1 / 255)


class Photographs(Dataset[Tensor]):
    """As a torch program reads them."""

    def __init__(self, files: list[bytes]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> Tensor:
        image = Image.open(io.BytesIO(self._files[row])).convert("RGB")
        scale = SIDE / min(image.size)
        sides = [max(SIDE, int(side * scale)) for side in image.size]
        image = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
        left, top = (sides[0] - SIDE) // 2, (sides[1] - SIDE) // 2
        image = image.crop((left, top, left + SIDE, top + SIDE))
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def on_disk(files: list[bytes], folder: Path, num_loaders: int) -> StoredInputs:
    """The photographs as a host has them."""
    path = folder / "photographs.parquet"
    pq.write_table(
        pa.table({"image": [{"bytes": data, "path": None} for data in files], "label": [0, 1] * (len(files) // 2)}), path
    )
    write_shards(path, folder / "shards", filename=path.name, task="image-classification", target_columns=["label"])
    map_shards(folder / "shards")
    stored = stored_splits(folder / "shards", ("image",), Reading(folder, num_loaders))["train"]
    return replace(stored, canvas=Canvas(SIDE, SIDE, 3))


def samples_of(inputs: Tensor | StoredInputs) -> Samples:
    return Samples(inputs, torch.arange(len(inputs)) % 2, READS, CPU)


_orders = itertools.count()


def epoch(samples: Samples, use: Callable[[Tensor, Tensor], None]) -> float:
    """The seconds of an epoch in an order that none had before: loaders keep what they made last."""
    batches = list(torch.split(epoch_order(len(samples), seed=0, epoch=next(_orders)), BATCH))
    started = time.monotonic()
    samples.announce(batches)
    for indices in batches:
        batch = samples.batch(indices)
        use(torch.as_tensor(batch.inputs), batch.labels)
    return time.monotonic() - started


def trained(network: nn.Module) -> Callable[[Tensor, Tensor], None]:
    """A step of training."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step(inputs: Tensor, labels: Tensor) -> None:
        torch.autograd.backward(nn.functional.cross_entropy(network(inputs), labels))
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loaders", type=int, default=1)
    parser.add_argument("--width", type=int, default=24, help="channels of the trained network")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    files = [image.data for image in photographs(asked.images)]
    with tempfile.TemporaryDirectory() as folder:
        stored = on_disk(files, Path(folder), asked.loaders)
        ours, in_memory = samples_of(stored), samples_of(stored.read())
        theirs = DataLoader(Photographs(files), batch_size=BATCH, num_workers=asked.loaders, persistent_workers=True)

        def by_torch() -> float:
            started = time.monotonic()
            for images in theirs:
                READS(images)
            return time.monotonic() - started

        network = nn.Sequential(
            nn.Conv2d(3, asked.width, 7, stride=2), nn.ReLU(), nn.Conv2d(asked.width, asked.width, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(asked.width, 2),
        )  # fmt: skip
        step = trained(network)
        contests: dict[str, Callable[[], float]] = {
            "loaders": lambda: epoch(ours, lambda inputs, labels: None),
            "DataLoader with Pillow": by_torch,
            "training from memory": lambda: epoch(in_memory, step),
            "training from shards": lambda: epoch(ours, step),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contests}
        for turn in range(asked.rounds + 1):
            for name, run in contests.items():
                taken = run()
                if turn:  # the first one starts processes
                    seconds[name].append(taken)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        print(f"{name:24} {asked.images / median:8,.0f} images/s  ({median:.2f} s)")
    print(f"loaders / DataLoader     {medians['loaders'] / medians['DataLoader with Pillow']:8.2f}")
    print(f"shards / memory          {medians['training from shards'] / medians['training from memory']:8.2f}")


if __name__ == "__main__":
    main()
