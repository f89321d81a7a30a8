"""Windows of images, cut out and resized to one size in one step, as Pillow crops and resizes them. B batch, C channels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from service.spec.image_augment import RandomResizedCrop
from worker.data.augment.operation import Draw, Stored, up_to

TRIES = 10
NUM_DRAWS = 4 * TRIES
"""Draws of one sample for its window."""
_FIXED_POINT = 2.0**22
"""Pillow resizes 8-bit pixels by integer weights, of which so much is 1."""


def random_resized_crop(spec: RandomResizedCrop, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Resizes a random window of each image (B, C, H, W) to the whole size, bilinear with antialiasing; the dtype stays."""
    batch, _, height, width = images.shape
    sides = torch.tensor([[height, width]], device=images.device).expand(batch, 2)
    windows = random_windows(spec.scale, spec.ratio, sides, draw(NUM_DRAWS))
    return resize_windows(images, windows, height=height, width=width)


def random_windows(scale: Sequence[float], ratio: Sequence[float], sides: Tensor, draws: Tensor) -> Tensor:
    """Draws windows, each (top, left, height, width) in pixels, of images of ``sides`` (B, 2): (B, 4) int64.

    The first of ten that lies within the image; else the largest of an allowed ratio in the middle, as torchvision's
    ``RandomResizedCrop`` (Szegedy et al., 2015). ``draws`` is (B, ``NUM_DRAWS``).
    """
    areas, ratios, down, right = draws.to(torch.float64).view(-1, TRIES, 4).unbind(2)
    high, wide = sides[:, :1], sides[:, 1:]
    low, top = scale
    targets = (high * wide) * (low + (top - low) * areas)
    narrow, broad = map(math.log, ratio)
    # Rounded to whole pixels at once, which hides the last bits of the exponential.
    shapes = torch.exp(narrow + (broad - narrow) * ratios)
    widths, heights = (targets * shapes).sqrt().round().long(), (targets / shapes).sqrt().round().long()
    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= high)
    places = torch.where(fits, torch.arange(TRIES, device=draws.device), TRIES).amin(dim=1, keepdim=True)
    drawn = torch.stack([up_to(down, high - heights + 1), up_to(right, wide - widths + 1), heights, widths], dim=2)
    chosen = drawn.gather(1, places.clamp(max=TRIES - 1)[:, :, None].expand(-1, 1, 4)).squeeze(1)
    return torch.where(places < TRIES, chosen, _middle(ratio, sides))


def _middle(ratio: Sequence[float], sides: Tensor) -> Tensor:
    """The largest windows in the middle of images of ``sides`` (B, 2) whose width over height lies within ``ratio``."""
    high, wide = sides.unbind(1)
    widths = torch.minimum(wide, (high * ratio[1]).round().long())
    heights = torch.minimum(high, (wide / ratio[0]).round().long())
    return torch.stack([(high - heights) // 2, (wide - widths) // 2, heights, widths], dim=1)


def resize_windows(images: Tensor, windows: Tensor, *, height: int, width: int) -> Tensor:
    """Resizes each image's window (B, 4) to (height, width), bilinear with antialiasing; uint8 or float32.

    Of 8-bit images Pillow's pixels, of sums of integers, which float64 holds whole in any order. Pillow chooses by the sizes
    whether rows or columns come first, and rounds after each: where it takes the rows first, pixels differ by 1 at most.
    """
    batch, channels, rows, columns = images.shape
    is_exact = images.dtype == torch.uint8
    across = _weights(windows[:, 1], windows[:, 3], of=columns, to=width, is_exact=is_exact)
    along = _weights(windows[:, 0], windows[:, 2], of=rows, to=height, is_exact=is_exact)
    values = images.to(torch.float64).view(batch, channels * rows, columns)
    values = _rounded(values @ across.mT, is_exact=is_exact).view(batch, channels, rows, width)
    return _rounded(along[:, None] @ values, is_exact=is_exact).to(images.dtype)


def _weights(starts: Tensor, lengths: Tensor, *, of: int, to: int, is_exact: bool) -> Tensor:
    """Weights (B, ``to``, ``of``) float64 of a side's pixels in those it is resized to: Pillow's triangle filter."""
    starts, lengths = starts[:, None, None], lengths[:, None, None]
    scale = lengths.to(torch.float64) / to
    support = scale.clamp(min=1.0)
    centres = (torch.arange(to, device=starts.device, dtype=torch.float64) + 0.5)[:, None] * scale
    places = torch.arange(of, device=starts.device) - starts
    least, most = (centres - support + 0.5).clamp(min=0).long(), (centres + support + 0.5).long()
    inside = (places >= least) & (places < torch.minimum(most, lengths))
    weights = (1 - ((places - centres + 0.5) / support).abs()).clamp(min=0) * inside
    weights = weights / weights.sum(dim=2, keepdim=True)
    return (weights * _FIXED_POINT + 0.5).floor() if is_exact else weights


def _rounded(sums: Tensor, *, is_exact: bool) -> Tensor:
    return ((sums + _FIXED_POINT / 2) / _FIXED_POINT).floor_().clamp_(0, 255) if is_exact else sums
