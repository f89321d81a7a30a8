"""Preprocessing of images: one affine map for each channel of the stored pixels."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.spec.shapes import InputShape, TokenShape
from worker.data.disk.stored import PixelSums, StoredInputs
from worker.data.images.canvas import Canvas
from worker.data.images.pixel_range import PixelRange
from worker.data.images.processor_file import write_processor_file
from worker.data.preprocessing import Preprocessing, RawInputs


@dataclass(frozen=True)
class PixelPreprocessing(Preprocessing):
    """Computes ``(pixel * rescale_factor - mean) / std``; each channel has a mean and a std in units of the rescaled pixel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale_factor: float = 1.0
    """1/255 for 8-bit images, 1 for floating-point images."""
    pixels: PixelRange | None = None
    """The range of the stored pixels that it was measured on; None if a network's files do not tell."""
    canvas: Canvas | None = None
    """What the images that it was measured on were fitted to; None for images that came in one size."""

    def prepare(self, inputs: Tensor) -> Tensor:
        """Returns images (N, C, H, W) unchanged."""
        return inputs

    def __call__(self, stored: Tensor) -> Tensor:
        """Maps images (B, C, H, W) of any dtype to float32 of the same shape, on the same device."""
        factor, offset = _affine(self, stored.device)
        return torch.addcmul(offset, stored.to(torch.float32), factor)

    def input_shape(self, inputs: RawInputs) -> InputShape:
        """(channels, height, width)."""
        return tuple(inputs.shape[1:])

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        if isinstance(input_shape, TokenShape) or len(input_shape) != 3:
            raise TypeError(f"images have (channels, height, width), not {input_shape}")
        channels, height, width = input_shape
        write_processor_file(folder, self, input_shape=(channels, height, width))


@lru_cache(maxsize=16)
def _affine(preprocessing: PixelPreprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    # Cached on the device: a copy from the host at every step would stall a GPU.
    factors = [preprocessing.rescale_factor / std for std in preprocessing.std]
    offsets = [-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
    factor = torch.tensor(factors, dtype=torch.float32, device=device).view(-1, 1, 1)
    return factor, torch.tensor(offsets, dtype=torch.float32, device=device).view(-1, 1, 1)


def measure_pixels(
    images: Tensor | StoredInputs,
    *,
    rescale_factor: float,
    pixels: PixelRange | None = None,
    canvas: Canvas | None = None,
) -> PixelPreprocessing:
    """Measures the normalisation that gives each channel of images (N, C, H, W) mean 0 and standard deviation 1.

    A constant channel is only centred. Of many images that have to be decoded, evenly spaced ones are measured. ``pixels`` is the
    range of the images of all splits, ``canvas`` what they were fitted to.
    """
    if isinstance(images, StoredInputs):
        return _measured(images.pixel_sums, rescale_factor=rescale_factor, pixels=pixels, canvas=canvas)
    channels = images.shape[1]
    count = images.numel() // channels
    total = torch.zeros(channels, dtype=torch.float64)
    # Two passes: the one-pass variance loses all digits where the mean is large against the spread.
    for chunk in torch.split(images, _CHUNK_IMAGES):
        total += chunk.to(torch.float64).sum(dim=(0, 2, 3))
    mean = total / count
    squares = torch.zeros(channels, dtype=torch.float64)
    for chunk in torch.split(images, _CHUNK_IMAGES):
        squares += (chunk.to(torch.float64) - mean.view(-1, 1, 1)).square().sum(dim=(0, 2, 3))
    return _normalisation(mean, (squares / count).sqrt(), rescale_factor=rescale_factor, pixels=pixels, canvas=canvas)


def _measured(sums: PixelSums, **settings: Any) -> PixelPreprocessing:
    mean, squares = (torch.tensor(each, dtype=torch.float64) / sums.count for each in (sums.total, sums.squares))
    return _normalisation(mean, squares.sqrt(), **settings)


def _normalisation(
    mean: Tensor, std: Tensor, *, rescale_factor: float, pixels: PixelRange | None, canvas: Canvas | None
) -> PixelPreprocessing:
    std = torch.where(std > 0, std, torch.ones_like(std) / rescale_factor)
    return PixelPreprocessing(
        mean=tuple((mean * rescale_factor).tolist()),
        std=tuple((std * rescale_factor).tolist()),
        rescale_factor=rescale_factor,
        pixels=pixels,
        canvas=canvas,
    )


_CHUNK_IMAGES = 1024
