"""Photographs of several sizes, from JPEG files to batches: ``python -m benchmarks.image_loading``.

The job and torch's DataLoader over Pillow make the same kind of view on one core: a random window of the whole photograph (scale
0.35 to 1), resized to 224x224 with bilinear antialiasing and flipped half of the time, as a batch of 8-bit images. They take
turns, so that a busy moment of the machine falls on both, and the medians are compared. A ratio below 1: the job is faster. That
a job's windows come from (seed, epoch, sample) is in its time. Beside them a job whose views go through RandAugment too.
"""

import argparse
import io
import random
from collections.abc import Callable
from importlib.resources import files

from benchmarks.in_turns import median_seconds
from worker.host.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # as trainers run; before torch is imported

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from service.formats import EncodedImage
from service.formats.media.image_file import check_image
from service.spec.image_augment import Flip, RandAugment, RandomResizedCrop
from worker.data.augment import Augmentation, Stored
from worker.data.images.canvas import Canvas, WholeImages

SIDE = 224
CROP = RandomResizedCrop(name="random-resized-crop", scale=[0.35, 1.0])


def photographs(count: int) -> list[EncodedImage]:
    """JPEGs of about 500x375 pixels, parts of two photographs."""
    wholes = [
        Image.open(io.BytesIO((files("sklearn.datasets.images") / name).read_bytes())) for name in ("china.jpg", "flower.jpg")
    ]
    made = []
    for number in range(count):
        width, height = random.randint(400, 600), random.randint(300, 420)
        left, top = random.randint(0, 640 - width), random.randint(0, 427 - height)
        buffer = io.BytesIO()
        wholes[number % 2].crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=90)
        made.append(check_image(buffer.getvalue(), place="a photograph")[0])
    return made


class Photographs(Dataset[Tensor]):
    """As a torch program reads them."""

    def __init__(self, images: list[EncodedImage]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(io.BytesIO(self._images[index].data)) as opened:
            image = opened.convert("RGB")
        share, shape = random.uniform(*CROP.scale), random.uniform(*CROP.ratio)
        area = share * image.width * image.height
        width, height = min(image.width, round((area * shape) ** 0.5)), min(image.height, round((area / shape) ** 0.5))
        left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
        view = image.crop((left, top, left + width, top + height)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(view)).permute(2, 0, 1)


def job(images: list[EncodedImage], *more: RandAugment) -> Callable[[Tensor], Tensor]:
    """From the numbers of some samples to their views, as a job's training makes them."""
    whole = WholeImages(images, Canvas(SIDE, SIDE, 3))
    stored = torch.empty(len(images), 3, 1, 1, dtype=torch.uint8)  # windows are of the files
    augmentation = Augmentation([CROP, Flip(name="flip"), *more], len(images), Stored(whole=whole, canvas=whole.canvas))
    return lambda indices: augmentation(lambda rows: stored[rows], indices, seed=0, epoch=0).inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    images = photographs(arguments.images)
    batches = torch.split(torch.randperm(len(images)), arguments.batch_size)
    loader = DataLoader(Photographs(images), batch_size=arguments.batch_size, shuffle=True)
    plain, augmented = job(images), job(images, RandAugment(name="rand-augment"))
    contestants: dict[str, Callable[[], object]] = {
        "the job": lambda: [plain(batch) for batch in batches],
        "torch's DataLoader, Pillow": lambda: list(loader),
        "the job, with RandAugment": lambda: [augmented(batch) for batch in batches],
    }
    medians = median_seconds(contestants, rounds=arguments.rounds)
    first = next(iter(medians))
    for name, median in medians.items():
        ratio = "" if name == first else f"   the job takes {medians[first] / median:.2f} of it"
        print(f"{name:28} {len(images) / median:7.0f} images a second{ratio}")


if __name__ == "__main__":
    main()
