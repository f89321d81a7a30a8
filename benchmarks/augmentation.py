"""A job's augmentation against loops over samples: ``python -m benchmarks.augmentation``.

All of them make the same kind of view of CIFAR-like images, 8-bit pixels in memory: a crop of the image with a frame of 4 black
pixels, flipped half of the time, with a black square of 8 pixels anywhere. They go from the places of a batch's samples to the
batch of 8-bit views. They take turns, so that a busy moment of the machine falls on all, and the medians are compared. Ratios
are the job's seconds over the loop's: below 1, the job is faster. That a job's numbers come from (seed, epoch, sample) is in its
time; the loops draw theirs from a generator that nobody could ask again.

Two loops: over PIL images, as most data sets' transforms do it, and over tensors.
"""

import argparse
import random

from benchmarks.in_turns import median_seconds
from worker.host.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # as trainers run; before torch is imported

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from service.spec.image_augment import Crop, Cutout, Flip
from worker.data.augment import Augmentation, Stored

CROP, FLIP, CUTOUT = Crop(name="crop"), Flip(name="flip"), Cutout(name="cutout")


class Contest:
    """One training split; each contestant makes the views of an epoch's batches."""

    def __init__(self, *, num_samples: int, batch_size: int, size: int) -> None:
        self.images = torch.randint(0, 256, (num_samples, 3, size, size), dtype=torch.uint8)
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in self.images]
        self.size = size
        self.batches = torch.split(torch.randperm(num_samples), batch_size)
        self.augmentation = Augmentation([CROP, FLIP, CUTOUT], num_samples, Stored(value_range=(0.0, 255.0)))

    def job(self) -> None:
        """As a job's training does it."""
        for indices in self.batches:
            self.augmentation(lambda places: self.images.index_select(0, places), indices, seed=0, epoch=0)

    def loop_over_pictures(self) -> None:
        """One PIL image after the other."""
        for indices in self.batches:
            views = np.stack([np.asarray(self._picture(self.pictures[index])) for index in indices.tolist()])
            torch.from_numpy(views).permute(0, 3, 1, 2).contiguous()

    def loop_over_tensors(self) -> None:
        """One tensor after the other."""
        for indices in self.batches:
            torch.stack([self._tensor(self.images[index]) for index in indices.tolist()])

    def _picture(self, picture: Image.Image) -> Image.Image:
        left, top = (random.randint(0, 2 * CROP.padding) for _ in range(2))
        view = ImageOps.expand(picture, CROP.padding).crop((left, top, left + self.size, top + self.size))
        if random.random() < FLIP.probability:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left, top = (random.randrange(self.size) - CUTOUT.size // 2 for _ in range(2))
        view.paste((0, 0, 0), (max(left, 0), max(top, 0), left + CUTOUT.size, top + CUTOUT.size))
        return view

    def _tensor(self, image: Tensor) -> Tensor:
        left, top = (random.randint(0, 2 * CROP.padding) for _ in range(2))
        view = functional.pad(image, [CROP.padding] * 4)[:, top : top + self.size, left : left + self.size]
        if random.random() < FLIP.probability:
            view = view.flip(2)
        left, top = (random.randrange(self.size) - CUTOUT.size // 2 for _ in range(2))
        view[:, max(top, 0) : top + CUTOUT.size, max(left, 0) : left + CUTOUT.size] = 0
        return view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=5_120)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # As a training's first step does: once a large block was freed, glibc keeps those of a batch's size and hands them out again.
    torch.empty(2**24, dtype=torch.uint8)
    contest = Contest(num_samples=arguments.samples, batch_size=arguments.batch_size, size=arguments.size)
    contestants = {
        "the job, whole batches": contest.job,
        "loop over PIL images": contest.loop_over_pictures,
        "loop over tensors": contest.loop_over_tensors,
    }
    medians = median_seconds(contestants, rounds=arguments.rounds)
    first = next(iter(medians))
    for name, median in medians.items():
        ratio = "" if name == first else f"   the job takes {medians[first] / median:.2f} of it"
        print(f"{name:24} {1e6 * median / arguments.samples:7.1f} µs a sample{ratio}")


if __name__ == "__main__":
    main()
