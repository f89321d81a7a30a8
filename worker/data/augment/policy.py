"""RandAugment and TrivialAugment: operations that are drawn for each sample, as Pillow computes them on 8-bit images.

Each operation maps images (B, C, H, W) uint8 and magnitudes (B,) float64 to images; its arithmetic is Pillow's, whole numbers or
a float that is cut off, so the result for a sample is the same in any batch. Images of another range are mapped to 256 levels
and back. Colours are changed in the first three channels; a fourth, transparency, moves with the pixels alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from service.spec.image_augment import RandAugment, TrivialAugment
from worker.data.augment.operation import Draw, Stored, up_to

BINS = 31
"""Steps of magnitude, from 0 (none) to 30."""
_SHIFT = 150 / 331
"""RandAugment's largest translation, as a share of the side."""

LevelOperation = Callable[[Tensor, Tensor], Tensor]


def rand_augment(spec: RandAugment, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Applies ``spec.operations`` drawn operations of one strength (Cubuk et al., 2019)."""
    draws = draw(2 * spec.operations)
    levels = to_levels(images, stored)
    strength = spec.magnitude / (BINS - 1)
    height, width = images.shape[2:]
    most = {"shear": 0.3, "across": _SHIFT * width, "along": _SHIFT * height, "rotate": 30.0, "enhance": 0.9, "bits": 4.0}
    for step in range(spec.operations):
        strengths = torch.full((len(images),), strength, dtype=torch.float64, device=images.device)
        levels = _apply(levels, draws[:, 2 * step], strengths, draws[:, 2 * step + 1], most=most)
    return from_levels(levels, images, stored)


def trivial_augment(spec: TrivialAugment, images: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Applies one drawn operation of a drawn strength, from the wide space (Müller & Hutter, 2021)."""
    draws = draw(3)
    most = {"shear": 0.99, "across": 32.0, "along": 32.0, "rotate": 135.0, "enhance": 0.99, "bits": 6.0}
    strengths = up_to(draws[:, 1], BINS).to(torch.float64) / (BINS - 1)
    levels = _apply(to_levels(images, stored), draws[:, 0], strengths, draws[:, 2], most=most)
    return from_levels(levels, images, stored)


def to_levels(images: Tensor, stored: Stored) -> Tensor:
    """Maps images of any range to 0 to 255, uint8; whole 8-bit images stay as they are."""
    low, high = stored.value_range
    if images.dtype == torch.uint8 and (low, high) == (0.0, 255.0):
        return images
    span = (high - low) or 1.0
    return ((images.to(torch.float64) - low) * (255 / span)).round_().clamp_(0, 255).to(torch.uint8)


def from_levels(levels: Tensor, images: Tensor, stored: Stored) -> Tensor:
    """Maps 0 to 255 back to the range of ``images``: uint8 for whole 8-bit images, else float32."""
    low, high = stored.value_range
    if images.dtype == torch.uint8 and (low, high) == (0.0, 255.0):
        return levels
    return (levels.to(torch.float64) * ((high - low) / 255) + low).to(torch.float32)


def shear_across(levels: Tensor, by: Tensor) -> Tensor:
    one, none = torch.ones_like(by), torch.zeros_like(by)
    return _affine(levels, [one, by, none, none, one, none])


def shear_along(levels: Tensor, by: Tensor) -> Tensor:
    one, none = torch.ones_like(by), torch.zeros_like(by)
    return _affine(levels, [one, none, none, by, one, none])


def translate_across(levels: Tensor, by: Tensor) -> Tensor:
    one, none = torch.ones_like(by), torch.zeros_like(by)
    return _affine(levels, [one, none, -by.trunc(), none, one, none])


def translate_along(levels: Tensor, by: Tensor) -> Tensor:
    one, none = torch.ones_like(by), torch.zeros_like(by)
    return _affine(levels, [one, none, none, none, one, -by.trunc()])


def rotate(levels: Tensor, degrees: Tensor) -> Tensor:
    """Turns counter-clockwise about the centre."""
    height, width = levels.shape[2:]
    angles = -torch.deg2rad(degrees)
    cosines, sines = angles.cos(), angles.sin()
    down, right = height / 2, width / 2
    return _affine(
        levels,
        [
            cosines,
            sines,
            right - cosines * right - sines * down,
            -sines,
            cosines,
            down + sines * right - cosines * down,
        ],
    )


def brightness(levels: Tensor, factors: Tensor) -> Tensor:
    return _coloured(levels, lambda colours: _blend(torch.zeros_like(colours), colours, factors))


def colour(levels: Tensor, factors: Tensor) -> Tensor:
    """Scales the distance from each pixel's grey."""
    return _coloured(levels, lambda colours: _blend(grey_of(colours).expand_as(colours), colours, factors))


def contrast(levels: Tensor, factors: Tensor) -> Tensor:
    """Scales the distance from the image's mean grey."""

    def changed(colours: Tensor) -> Tensor:
        grey = grey_of(colours)
        count = grey[0].numel()
        means = (2 * grey.long().sum(dim=(1, 2, 3)) + count) // (2 * count)
        return _blend(means.view(-1, 1, 1, 1).to(torch.uint8).expand_as(colours), colours, factors)

    return _coloured(levels, changed)


def sharpness(levels: Tensor, factors: Tensor) -> Tensor:
    """Scales the distance from the smoothed image."""
    return _coloured(levels, lambda colours: _blend(_smooth(colours), colours, factors))


def posterize(levels: Tensor, bits_less: Tensor) -> Tensor:
    """Keeps 8 bits less ``bits_less``."""
    masks = (256 - torch.pow(2, bits_less.round().long())).to(torch.uint8)
    return _coloured(levels, lambda colours: colours.bitwise_and(masks.view(-1, 1, 1, 1)))


def solarize(levels: Tensor, thresholds: Tensor) -> Tensor:
    """Inverts what is not below the threshold."""
    limits = thresholds.view(-1, 1, 1, 1)
    return _coloured(levels, lambda colours: torch.where(colours.to(torch.float64) < limits, colours, 255 - colours))


def autocontrast(levels: Tensor, _: Tensor) -> Tensor:
    """Stretches each channel to the whole range."""

    def stretched(colours: Tensor) -> Tensor:
        low, high = colours.flatten(2).aminmax(dim=2)
        low, high = low[:, :, None, None].to(torch.float64), high[:, :, None, None].to(torch.float64)
        scale = 255.0 / (high - low).clamp(min=1.0)
        made = (colours * scale + -low * scale).clamp_(0, 255).to(torch.uint8)
        return torch.where(high > low, made, colours)

    return _coloured(levels, stretched)


def equalize(levels: Tensor, _: Tensor) -> Tensor:
    """Makes each channel's histogram flat."""

    def flattened(colours: Tensor) -> Tensor:
        batch, channels = colours.shape[:2]
        flat = colours.reshape(batch * channels, -1).long()
        counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=flat.device).scatter_add_(1, flat, torch.ones_like(flat))
        brightest = counts.gather(1, flat.amax(dim=1, keepdim=True))
        steps = (counts.sum(dim=1, keepdim=True) - brightest) // 255
        below = counts.cumsum(dim=1) - counts
        table = ((steps // 2 + below) // steps.clamp(min=1)).clamp_(max=255)
        made = torch.where(steps > 0, table.gather(1, flat), flat)
        return made.to(torch.uint8).view_as(colours)

    return _coloured(levels, flattened)


def grey_of(colours: Tensor) -> Tensor:
    """Pillow's luma (ITU-R 601, in whole numbers) of RGB, (B, 1, H, W) uint8; the mean of other channels."""
    if colours.shape[1] != 3:
        return colours.to(torch.int64).sum(dim=1, keepdim=True).div(colours.shape[1], rounding_mode="floor").to(torch.uint8)
    red, green, blue = (colours[:, channel : channel + 1].to(torch.int64) for channel in range(3))
    return ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16).to(torch.uint8)


def _apply(levels: Tensor, choices: Tensor, strengths: Tensor, signs: Tensor, *, most: dict[str, float]) -> Tensor:
    """Applies to each sample the operation that ``choices`` (B,) in [0, 1) draws; those of one operation go together."""
    way = torch.where(signs < 0.5, 1.0, -1.0).to(torch.float64)
    operations: list[tuple[LevelOperation, Tensor]] = [
        (lambda same, _: same, strengths),
        (shear_across, way * strengths * most["shear"]),
        (shear_along, way * strengths * most["shear"]),
        (translate_across, way * strengths * most["across"]),
        (translate_along, way * strengths * most["along"]),
        (rotate, way * strengths * most["rotate"]),
        (brightness, 1 + way * strengths * most["enhance"]),
        (colour, 1 + way * strengths * most["enhance"]),
        (contrast, 1 + way * strengths * most["enhance"]),
        (sharpness, 1 + way * strengths * most["enhance"]),
        (posterize, strengths * most["bits"]),
        (solarize, 255 - strengths * 255),
        (autocontrast, strengths),
        (equalize, strengths),
    ]
    chosen = up_to(choices, len(operations)).tolist()
    made = levels.clone()
    for number in sorted(set(chosen)):
        rows = torch.tensor([row for row, each in enumerate(chosen) if each == number], device=levels.device)
        operation, magnitudes = operations[number]
        made[rows] = operation(levels[rows], magnitudes[rows])
    return made


def _coloured(levels: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Changes the colours, and leaves the transparency of images of four channels."""
    if levels.shape[1] != 4:
        return change(levels)
    return torch.cat([change(levels[:, :3]), levels[:, 3:]], dim=1)


def _blend(without: Tensor, levels: Tensor, factors: Tensor) -> Tensor:
    """``without`` + factor · (levels - without) in float32, cut off to a whole number, as Pillow's ``Image.blend``."""
    start = without.to(torch.float32)
    step = (levels.to(torch.float32) - start) * factors.to(torch.float32).view(-1, 1, 1, 1)
    return (start + step).clamp_(0, 255).to(torch.uint8)


def _smooth(colours: Tensor) -> Tensor:
    """Pillow's ``ImageFilter.SMOOTH``: the mean of 3x3 pixels, the middle one five times; the border stays."""
    if min(colours.shape[2:]) < 3:
        return colours
    whole = colours.to(torch.int64)
    rows = whole[:, :, :-2] + whole[:, :, 1:-1] + whole[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * whole[:, :, 1:-1, 1:-1]
    made = colours.clone()
    made[:, :, 1:-1, 1:-1] = ((2 * sums + 13) // 26).to(torch.uint8)
    return made


def _affine(levels: Tensor, matrix: list[Tensor]) -> Tensor:
    """Takes each pixel (x, y) from (ax + by + c, dx + ey + f), the nearest, in Pillow's 16 bits after the point; else black."""
    height, width = levels.shape[2:]
    a, b, c, d, e, f = matrix
    # The middle of the first pixel; rounding to 2⁻¹⁶ hides the last bits of the sines.
    fixed = [_fixed(value) for value in (a, b, c + (a + b) * 0.5, d, e, f + (d + e) * 0.5)]
    a, b, c, d, e, f = (value.view(-1, 1, 1) for value in fixed)
    x = torch.arange(width, device=levels.device)
    y = torch.arange(height, device=levels.device)[:, None]
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    places = (from_y.clamp(0, height - 1) * width + from_x.clamp(0, width - 1)).flatten(1)
    moved = levels.flatten(2).gather(2, places[:, None].expand(-1, levels.shape[1], -1)).view_as(levels)
    return moved * inside[:, None]


def _fixed(values: Tensor) -> Tensor:
    return (values * 65_536 + 0.5).floor().long()
