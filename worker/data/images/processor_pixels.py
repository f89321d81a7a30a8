"""Preprocessing of images by an image processor of ``transformers``: that of a network which was not trained here.

The processor itself is run, not a copy of its rules. Its values (rescaling, offset, normalisation) are mostly one affine map for
each channel of what its geometry (resizing, cropping, padding, channel order) leaves. Where its outputs on a probe image show
that, the library computes the geometry alone, and the map runs on the network's device. Where the geometry only moves channels,
pixels of any value go through unrounded; else they are rounded to the 8 bits that the library resizes.
B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.spec.shapes import InputShape
from worker.data.images.pixel_range import EIGHT_BIT, UNIT, PixelRange
from worker.data.preprocessing import Preprocessing, RawInputs, first

_LEAST_WHITE = 100
"""Factors of 1/127.5, 1/255 and 1/256 are for 8-bit pixels."""
_SLIGHT = 1e-3


@dataclass(frozen=True)
class ProcessorPixels(Preprocessing):
    """Runs an image processor on stored images, for a network of ``num_channels``."""

    processor: Any
    num_channels: int
    scale: float = 1.0
    """Factor of the stored pixels that brings them into the range which the processor reads."""
    resized_as: Literal["8 bits", "0 to 1", "stored"] = "8 bits"
    """What the library gets where it resizes: 8-bit pixels, floats from 0 to 1, or floats of another range."""

    def prepare(self, inputs: Tensor) -> Tensor:
        """Returns images (N, C, H, W) unchanged."""
        return inputs

    def __call__(self, stored: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to float32 of the processor's size, on the same device."""
        steps = _measure_steps(self, (stored.shape[1], stored.shape[2], stored.shape[3]))
        if steps.order is not None:
            pixels = self._scaled(stored)[:, list(steps.order)]
        else:
            values = self._as_read(stored.cpu())
            pixels = self._run(values, geometry_alone=steps.affine is not None).to(stored.device, torch.float32)
        if steps.affine is None:
            return pixels
        factor, offset = _on_device(steps.affine, stored.device)
        return torch.addcmul(offset, pixels, factor)

    def input_shape(self, inputs: RawInputs) -> InputShape:
        """(channels, height, width) of what the processor makes of these images."""
        return tuple(self(first(inputs, 1)).shape[1:])

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        self.processor.save_pretrained(folder)

    def reads(self, images: RawInputs) -> PixelRange | None:
        """The range of the pixels that the processor is made for, by what it does with these images; None if that does not tell.

        A processor that centres pixels shows by its mean how bright white is, and one that rescales them is for 8-bit images.
        """
        factor = getattr(self.processor, "rescale_factor", None) or 1.0
        rescales = bool(getattr(self.processor, "do_rescale", None)) and factor != 1
        if rescales and factor > 1 / _LEAST_WHITE:  # the digits of an older export, from 0 to 16
            return PixelRange(0.0, round(1 / factor))
        affine = _measure_steps(self, (images.shape[1], images.shape[2], images.shape[3])).affine
        mean = max((-offset / scale for scale, offset in affine), default=0.0) if affine else 0.0
        if mean > _SLIGHT:
            return EIGHT_BIT if mean > 1 else UNIT
        return EIGHT_BIT if rescales else None

    def _as_read(self, stored: Tensor) -> Tensor:
        """Images on the CPU in the range and the type that the library resizes."""
        if self.resized_as == "8 bits" and stored.dtype == torch.uint8 and self.scale == 1:
            return stored
        values = self._scaled(stored)
        if self.resized_as == "8 bits":
            return values.round().clamp(0, 255).to(torch.uint8)
        return values.clamp(0, 1) if self.resized_as == "0 to 1" else values

    def _scaled(self, stored: Tensor) -> Tensor:
        # Divided by 255, not multiplied by its rounded inverse: the library cuts off floats where it resizes them.
        values = stored.to(torch.float32)
        return values * self.scale if self.scale >= 1 else values / (1 / self.scale)

    def _run(self, values: Tensor, *, geometry_alone: bool = False) -> Tensor:
        options: dict[str, Any] = {"do_rescale": False, "do_normalize": False} if geometry_alone else {}
        if geometry_alone and "include_top" in self.processor.valid_kwargs.__annotations__:
            options["include_top"] = False  # a second normalisation
        if values.shape[1] in (1, 4) and self.num_channels == 3:
            options["do_convert_rgb"] = True
        images: Sequence[NDArray[Any]] = list(values.numpy())
        made = self.processor(images, input_data_format="channels_first", return_tensors="pt", **options)
        pixels: Tensor = made["pixel_values"]
        return pixels


@dataclass(frozen=True)
class _Steps:
    """What a processor was measured to do with images of one shape."""

    order: tuple[int, ...] | None
    """The stored channel that each output channel is, if the geometry does no more than that."""
    affine: tuple[tuple[float, float], ...] | None
    """Factor and offset of each channel after the geometry; None if the values are no such map."""


@lru_cache(maxsize=32)
def _measure_steps(pixels: ProcessorPixels, shape: tuple[int, int, int]) -> _Steps:
    draws = np.random.default_rng(0).integers(0, 256, size=(2, *shape), dtype=np.uint8)
    probe = torch.from_numpy(draws)
    if pixels.resized_as != "8 bits":
        probe = probe / 255
    made = pixels._run(probe).to(torch.float64)
    left = pixels._run(probe, geometry_alone=True).to(torch.float64)
    affine = _affine_between(left, made) if left.shape == made.shape else None
    return _Steps(None if affine is None else _channel_order(probe.to(torch.float64), left), affine)


def _affine_between(left: Tensor, made: Tensor) -> tuple[tuple[float, float], ...] | None:
    found = []
    for channel in range(made.shape[1]):
        before, after = left[:, channel].flatten(), made[:, channel].flatten()
        darkest, brightest = before.argmin(), before.argmax()
        span = (before[brightest] - before[darkest]).item()
        if span == 0:
            return None
        factor = (after[brightest] - after[darkest]).item() / span
        offset = (after[darkest] - factor * before[darkest]).item()
        if not torch.allclose(before * factor + offset, after, rtol=1e-5, atol=1e-5):
            return None
        found.append((factor, offset))
    return tuple(found)


def _channel_order(probe: Tensor, left: Tensor) -> tuple[int, ...] | None:
    if left.shape[2:] != probe.shape[2:]:
        return None
    order = []
    for channel in range(left.shape[1]):
        same = [index for index in range(probe.shape[1]) if torch.equal(probe[:, index], left[:, channel])]
        if not same:
            return None
        order.append(same[0])
    return tuple(order)


@lru_cache(maxsize=32)
def _on_device(affine: tuple[tuple[float, float], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    # Cached on the device: a copy from the host at every step would stall a GPU.
    factor, offset = torch.tensor(affine, dtype=torch.float32, device=device).unbind(1)
    return factor.view(-1, 1, 1), offset.view(-1, 1, 1)
