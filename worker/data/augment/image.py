"""Operations on stored images: pixels of any range, before a network's own preprocessing.

Operations that only move pixels keep the dtype, uint8 too; those that change values return float32. B batch, C channels,
H height, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from service.spec.image_augment import Affine, Blur, Colour, Crop, Cutout, Flip, Greyscale, RandomErasing, VerticalFlip
from worker.data.augment.box import boxes, paste
from worker.data.augment.operation import Draw, Stored, between, by_sample, up_to
from worker.data.augment.policy import grey_of
from worker.data.augment.window import NUM_DRAWS, random_windows

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's luma (ITU-R BT.601)."""


def crop(spec: Crop, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Pads each image by ``spec.padding`` pixels and takes a random window (H, W)."""
    height, width = images.shape[2:]
    if spec.mode == "reflect":
        framed = images.index_select(2, _mirrored(height, spec.padding, images.device))
        framed = framed.index_select(3, _mirrored(width, spec.padding, images.device))
    else:
        framed = functional.pad(images, [spec.padding] * 4, value=_value(0.0, images, stored))
    return _windows(framed, up_to(draw(2), 2 * spec.padding + 1), height=height, width=width)


def flip(spec: Flip, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Flips a share of the images horizontally."""
    flipped = (draw(1)[:, 0] < spec.probability).to(images.dtype)
    return paste(images, images.flip(3), by_sample(flipped, images))


def vertical_flip(spec: VerticalFlip, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Flips a share of the images vertically."""
    flipped = (draw(1)[:, 0] < spec.probability).to(images.dtype)
    return paste(images, images.flip(2), by_sample(flipped, images))


def cutout(spec: Cutout, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Fills a square whose centre is any of the image's pixels (DeVries & Taylor, 2017)."""
    square = boxes(images, draw(2), heights=spec.size, widths=spec.size)
    return paste(images, _value(spec.fill, images, stored), square)


def random_erasing(spec: RandomErasing, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Fills a box in a share of the images; one that would not fit is drawn again, ten times at most (Zhong et al., 2017)."""
    draws = draw(1 + NUM_DRAWS)
    height, width = images.shape[2:]
    sides = torch.tensor([[height, width]], device=images.device).expand(len(images), 2)
    tops, lefts, heights, widths = random_windows(spec.scale, spec.ratio, sides, draws[:, 1:]).unbind(1)
    is_erased = draws[:, 0] < spec.probability
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    within_rows = (rows >= tops[:, None]) & (rows < (tops + heights)[:, None]) & is_erased[:, None]
    within_columns = (columns >= lefts[:, None]) & (columns < (lefts + widths)[:, None])
    box = (within_rows[:, :, None] & within_columns[:, None])[:, None].to(images.dtype)
    return paste(images, _value(spec.fill, images, stored), box)


def greyscale(spec: Greyscale, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Replaces the colours of a share of the images by their grey; transparency, a fourth channel, stays."""
    grey = (draw(1)[:, 0] < spec.probability).to(images.dtype)
    colours = images[:, :3] if images.shape[1] == 4 else images
    made = grey_of(colours) if images.dtype == torch.uint8 else _grey(colours)
    changed = paste(colours, made.expand_as(colours), by_sample(grey, colours))
    return torch.cat([changed, images[:, 3:]], dim=1) if images.shape[1] == 4 else changed


def blur(spec: Blur, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Blurs a share of the images by a Gaussian, cut off at four standard deviations, of the image mirrored at its border."""
    draws = draw(2).to(torch.float64)
    sigmas = between(draws[:, 1], *spec.sigma)
    values = images.to(torch.float64)
    along, across = (_gaussian(sigmas, side, most=spec.sigma[1]) for side in images.shape[2:])
    blurred = (along[:, None] @ values) @ across[:, None].mT
    if not images.is_floating_point():
        blurred = blurred.round_().clamp_(0, 255)
    is_blurred = (draws[:, 0] < spec.probability).to(images.dtype)
    return paste(images, blurred.to(images.dtype), by_sample(is_blurred, images))


def colour(spec: Colour, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Scales brightness (distance from black), contrast (from the mean grey) and saturation (from each pixel's grey); float32."""
    low, high = stored.value_range
    draws = draw(3)
    brightness, contrast, saturation = (
        by_sample(between(draws[:, place], 1 - strength, 1 + strength), images)
        for place, strength in enumerate((spec.brightness, spec.contrast, spec.saturation))
    )
    images = ((images.to(torch.float32) - low) * brightness + low).clamp_(low, high)
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).to(torch.float32)
    images = ((images - mean) * contrast + mean).clamp_(low, high)
    grey = _grey(images)
    return ((images - grey) * saturation + grey).clamp_(low, high)


def affine(spec: Affine, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Rotates about the centre, scales and translates, with bilinear sampling; float32."""
    height, width = images.shape[2:]
    low, _ = stored.value_range
    draws = draw(4)
    angles = torch.deg2rad(between(draws[:, 0], -spec.degrees, spec.degrees).to(torch.float64))[:, None, None]
    cosines, sines = angles.cos().to(torch.float32), angles.sin().to(torch.float32)
    factors = between(draws[:, 1], 1 - spec.scale, 1 + spec.scale)[:, None, None]
    down, right = (
        between(draws[:, place], -spec.shift * side, spec.shift * side)[:, None, None]
        for place, side in ((2, height), (3, width))
    )
    # Distances from the image's centre in pixels, not in shares of the sides: a square stays a square in an oblong image.
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None] - down
    x = (torch.arange(width, device=images.device) - (width - 1) / 2) - right
    from_x, from_y = (x * cosines + y * sines) / factors, (y * cosines - x * sines) / factors
    grid = torch.stack([from_x * (2 / width), from_y * (2 / height)], dim=3)
    sampled = functional.grid_sample(
        images.to(torch.float32) - low, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled + low


def _windows(images: Tensor, corners: Tensor, *, height: int, width: int) -> Tensor:
    """Takes from each image (B, C, …) the window with the top left corner in ``corners`` (B, 2): (B, C, height, width)."""
    batch, channels, rows, columns = images.shape
    maps = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * (rows * columns)
    starts = maps + (corners[:, :1] * columns + corners[:, 1:])[:, :, None]
    starts = starts + torch.arange(height, device=images.device) * columns
    # ``unfold`` views every run of ``width`` pixels of the batch as a row, without a copy; a window is ``height`` of these rows.
    runs = images.flatten().unfold(0, width, 1)
    return runs.index_select(0, starts.flatten()).view(batch, channels, height, width)


def _mirrored(size: int, padding: int, device: torch.device) -> Tensor:
    """Source index of each position of a padded side, reflected at the first and the last pixel, which are not repeated."""
    period = max(1, 2 * (size - 1))
    places = torch.arange(-padding, size + padding, device=device) % period
    return torch.minimum(places, (period - places) % period)


def _gaussian(sigmas: Tensor, size: int, *, most: float) -> Tensor:
    """Weights (B, ``size``, ``size``) float64 of a side's pixels in the blurred ones; no sigma is above ``most``."""
    reach = int(4 * most + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=sigmas.device)
    reaches = (4 * sigmas + 0.5).floor()[:, None]
    kernel = torch.exp(-0.5 * (offsets / sigmas[:, None]).square()) * (offsets.abs() <= reaches)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    sources = _mirrored(size, reach, sigmas.device).unfold(0, 2 * reach + 1, 1)  # (size, 2 reach + 1)
    weights = torch.zeros(len(sigmas), size, size, dtype=torch.float64, device=sigmas.device)
    return weights.scatter_add_(2, sources.expand(len(sigmas), -1, -1), kernel[:, None].expand(-1, size, -1))


def _value(brightness: float, images: Tensor, stored: Stored) -> float:
    """Converts a brightness from 0 to 1 to the stored range of these images."""
    low, high = stored.value_range
    value = low + brightness * (high - low)
    return value if images.is_floating_point() else round(value)


def _grey(images: Tensor) -> Tensor:
    """Grey of images (B, C, H, W): (B, 1, H, W)."""
    if images.shape[1] != len(_LUMA):
        return images.mean(dim=1, keepdim=True)
    red, green, blue = (images[:, channel : channel + 1] * weight for channel, weight in enumerate(_LUMA))
    return red + green + blue
