"""A list of augmentations as one function from samples to their views of an epoch. B batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from service.spec.augment import AugmentationName, AugmentationSpec
from service.spec.image_augment import RandomResizedCrop
from worker.data.augment.audio import gain, noise, specaugment, time_shift
from worker.data.augment.image import (
    affine,
    blur,
    colour,
    crop,
    cutout,
    flip,
    greyscale,
    random_erasing,
    vertical_flip,
)
from worker.data.augment.mixture import MixOperation, cutmix, mixup
from worker.data.augment.operation import Operation, Stored
from worker.data.augment.policy import rand_augment, trivial_augment
from worker.data.augment.text import token_dropout
from worker.data.augment.window import NUM_DRAWS, random_resized_crop, random_windows
from worker.data.counter_rng import Numbers

Fetch = Callable[[Tensor], Tensor]
"""From indices into the training split (B,) to the stored inputs (B, …) of these samples, on the device that trains."""

OPERATIONS: dict[AugmentationName, Operation] = {
    "random-resized-crop": random_resized_crop,
    "crop": crop,
    "flip": flip,
    "vertical-flip": vertical_flip,
    "rand-augment": rand_augment,
    "trivial-augment": trivial_augment,
    "cutout": cutout,
    "random-erasing": random_erasing,
    "colour": colour,
    "greyscale": greyscale,
    "blur": blur,
    "affine": affine,
    "gain": gain,
    "noise": noise,
    "time-shift": time_shift,
    "specaugment": specaugment,
    "token-dropout": token_dropout,
}
MIX_OPERATIONS: dict[AugmentationName, MixOperation] = {"mixup": mixup, "cutmix": cutmix}

_PARTNER_STREAMS = 2**16
"""Added to an operation's stream number for the stream that its partners are drawn from."""


@dataclass(frozen=True)
class View:
    """Samples as an epoch sees them."""

    inputs: Tensor
    """(B, …), in the range of the stored values; the teacher sees the same."""
    partners: Tensor | None = None
    """(B,), indices into the training split of the samples that were mixed in; None without a mixture."""
    shares: Tensor | None = None
    """(B,), float32: the loss is ``share · ℓ(own label) + (1 - share) · ℓ(partner's label)``."""


@dataclass(frozen=True)
class Augmentation:
    """Operations that are applied to each sample in order. An operation draws from the stream with its index in the list."""

    specs: Sequence[AugmentationSpec]
    """At most one of them is a mixture."""
    num_samples: int
    """Size of the training split, from which partners are drawn."""
    stored: Stored
    first_stream: int = 0
    """The stream of the first operation: two lists for the same samples begin at different ones."""

    def __call__(self, fetch: Fetch, indices: Tensor, *, seed: int, epoch: int) -> View:
        """Computes the views of the samples at ``indices`` (B,) of the training split."""
        of_whole = self._windows_of_whole(indices, seed=seed, epoch=epoch)
        inputs = fetch(indices) if of_whole is None else of_whole.to(fetch(indices[:0]).device, non_blocking=True)
        numbers = Numbers.of(indices.to(inputs.device, non_blocking=True), seed=seed, epoch=epoch)
        partners = shares = None
        for index, spec in enumerate(self.specs):
            stream = self.first_stream + index
            draw = partial(numbers.uniforms, stream=stream)
            if index == 0 and of_whole is not None:
                continue
            if spec.name in OPERATIONS:
                inputs = OPERATIONS[spec.name](spec, inputs, draw, self.stored)
            else:
                # On the indices' device, which may not be the inputs': nothing waits for a copy back.
                drawn = Numbers.of(indices, seed=seed, epoch=epoch)
                partners = drawn.integers(below=self.num_samples, stream=_PARTNER_STREAMS + stream)
                # A partner has gone through the operations before this one, as in its own view of the epoch.
                before = replace(self, specs=self.specs[:index])
                others = before(fetch, partners, seed=seed, epoch=epoch).inputs
                inputs, shares = MIX_OPERATIONS[spec.name](spec, inputs, others, draw)
        return View(inputs, partners, shares)

    def _windows_of_whole(self, indices: Tensor, *, seed: int, epoch: int) -> Tensor | None:
        """The first operation, where it takes windows of images that are larger than the stored ones; else None."""
        if self.stored.whole is None or not self.specs or not isinstance(self.specs[0], RandomResizedCrop):
            return None
        rows, spec = indices.cpu(), self.specs[0]
        images = self.stored.whole.take(rows)
        draws = Numbers.of(rows, seed=seed, epoch=epoch).uniforms(NUM_DRAWS, stream=self.first_stream)
        return images.windows(random_windows(spec.scale, spec.ratio, images.sides, draws))
