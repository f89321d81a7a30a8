"""Operations on images as they are stored: pixels of any range, before a network's own preprocessing.

What only moves pixels keeps their type, 8-bit too; what changes values gives float32. B batch, C channels, H height, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from service.spec.augment import Affine, Colour, Crop, Cutout, Flip
from worker.data.augment.operation import Draw, Stored, between, by_sample, up_to

_LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in a pixel's grey (ITU-R BT.601)."""


def crop(spec: Crop, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """A window (H, W) of each image with a frame of ``spec.padding`` pixels."""
    height, width = images.shape[2:]
    corners = up_to(draw(2), 2 * spec.padding + 1) - spec.padding
    rows = corners[:, :1] + torch.arange(height, device=images.device)
    columns = corners[:, 1:] + torch.arange(width, device=images.device)
    if spec.mode == "reflect":
        return _gathered(images, _mirrored(rows, height), _mirrored(columns, width))
    moved = _gathered(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    inside = _both(_within(rows, height), _within(columns, width))
    return moved.masked_fill_(~inside, _value(0.0, images, stored))


def flip(spec: Flip, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Columns in reverse order, for a share of the samples."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device).expand(len(images), height)
    columns = torch.arange(width, device=images.device)
    return _gathered(images, rows, torch.where(draw(1) < spec.probability, columns.flip(0), columns))


def cutout(spec: Cutout, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """A square hidden whose centre is any of the image's pixels."""
    height, width = images.shape[2:]
    draws = draw(2)
    tops = up_to(draws[:, :1], height) - spec.size // 2
    lefts = up_to(draws[:, 1:], width) - spec.size // 2
    rows = _within(torch.arange(height, device=images.device) - tops, spec.size)
    columns = _within(torch.arange(width, device=images.device) - lefts, spec.size)
    return images.masked_fill(_both(rows, columns), _value(spec.fill, images, stored))


def colour(spec: Colour, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Brightness as distance from black, contrast from the image's mean grey, saturation from each pixel's; float32."""
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
    """Turned about the centre, scaled and moved: where each pixel comes from, then bilinear; float32."""
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
    # Distances from the image's centre, in pixels: what is square stays square in images that are not.
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None] - down
    x = (torch.arange(width, device=images.device) - (width - 1) / 2) - right
    from_x, from_y = (x * cosines + y * sines) / factors, (y * cosines - x * sines) / factors
    grid = torch.stack([from_x * (2 / width), from_y * (2 / height)], dim=3)
    sampled = functional.grid_sample(
        images.to(torch.float32) - low, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled + low


def _gathered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, C, H, W) made of each one's pixels at ``rows`` (B, H) and ``columns`` (B, W), in memory of their own."""
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    return images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1)).view(images.shape)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places beyond the ends, led back as by mirrors at the first and the last pixel, which are not repeated."""
    period = max(1, 2 * (size - 1))
    inside = places % period
    return torch.minimum(inside, period - inside) if size > 1 else inside


def _within(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, H) and (B, W) to (B, 1, H, W)."""
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _value(brightness: float, images: Tensor, stored: Stored) -> float:
    """A brightness of 0 to 1 as these images store it."""
    low, high = stored.value_range
    value = low + brightness * (high - low)
    return value if images.is_floating_point() else round(value)


def _grey(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 1, H, W)."""
    if images.shape[1] != len(_LUMA):
        return images.mean(dim=1, keepdim=True)
    red, green, blue = (images[:, channel : channel + 1] * weight for channel, weight in enumerate(_LUMA))
    return red + green + blue
