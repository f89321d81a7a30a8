"""RandAugment's operations have the very pixels of Pillow's; what is drawn is of the papers' spaces."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from service.spec.image_augment import RandAugment, TrivialAugment
from tests.unit.worker.data.augment.draws import chosen, drawn
from worker.data.augment import Stored, policy
from worker.data.augment.policy import LevelOperation, from_levels, rand_augment, to_levels, trivial_augment

STORED = Stored(value_range=(0.0, 255.0))


def some_levels(channels: int) -> Tensor:
    """Noise, and images of few and of dark values, which have histograms of their own."""
    generator = torch.Generator().manual_seed(channels)
    noise = torch.randint(0, 256, (3, channels, 17, 13), generator=generator)
    return torch.cat([noise, noise[:1] // 16 + 40, noise[:1] // 128, torch.full_like(noise[:1], 77)]).to(torch.uint8)


def by_pillow(levels: Tensor, change: Callable[[Any], Any]) -> Tensor:
    made = []
    for image in levels:
        pixels = image.permute(1, 2, 0).numpy()
        changed = np.asarray(change(Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels)))
        made.append(torch.from_numpy(changed.copy()).view(*pixels.shape).permute(2, 0, 1))
    return torch.stack(made)


def moved(a: float, b: float, c: float, d: float, e: float, f: float) -> Callable[[Any], Any]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.NEAREST)


BY_PILLOW: list[tuple[LevelOperation, float, Callable[[Any], Any]]] = [
    *((policy.brightness, factor, lambda image, f=factor: ImageEnhance.Brightness(image).enhance(f)) for factor in (0.1, 1.27)),
    *((policy.colour, factor, lambda image, f=factor: ImageEnhance.Color(image).enhance(f)) for factor in (0.01, 1.9)),
    *((policy.contrast, factor, lambda image, f=factor: ImageEnhance.Contrast(image).enhance(f)) for factor in (0.4, 1.99)),
    *((policy.sharpness, factor, lambda image, f=factor: ImageEnhance.Sharpness(image).enhance(f)) for factor in (0.1, 1.9)),
    *((policy.posterize, less, lambda image, b=less: ImageOps.posterize(image, 8 - round(b))) for less in (0.0, 2.4, 6.0)),
    *((policy.solarize, limit, lambda image, t=limit: ImageOps.solarize(image, t)) for limit in (0.0, 127.5, 255.0)),
    (policy.autocontrast, 0.0, ImageOps.autocontrast),
    (policy.equalize, 0.0, ImageOps.equalize),
    *((policy.shear_across, by, moved(1, by, 0, 0, 1, 0)) for by in (0.3, -0.99)),
    *((policy.shear_along, by, moved(1, 0, 0, by, 1, 0)) for by in (0.17, -0.3)),
    *((policy.translate_across, by, moved(1, 0, -int(by), 0, 1, 0)) for by in (3.9, -5.2, 32.0)),
    *((policy.translate_along, by, moved(1, 0, 0, 0, 1, -int(by))) for by in (3.9, -5.2)),
    *((policy.rotate, angle, lambda image, a=angle: image.rotate(a)) for angle in (30.0, -135.0, 4.5, 0.0)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("operation", "magnitude", "pillow"), BY_PILLOW)
def test_an_operation_has_pillows_pixels(
    operation: LevelOperation, magnitude: float, pillow: Callable[[Any], Any], channels: int
) -> None:
    levels = some_levels(channels)
    made = operation(levels, torch.full((len(levels),), magnitude, dtype=torch.float64))
    assert torch.equal(made, by_pillow(levels, pillow))


def test_every_sample_has_its_own_operation_and_sign() -> None:
    levels = some_levels(3)
    # Of 14 operations: none, shear, autocontrast; turned to the left and to the right; equalised.
    operations = [0.0, 1.5 / 14, 12.5 / 14, 5.5 / 14, 5.5 / 14, 0.99]
    draws = [[each, 0.9, 0.5, 0.9] for each in operations]
    draws[3][1] = 0.1
    made = rand_augment(RandAugment(name="rand-augment", magnitude=30), levels, chosen(*draws), STORED)
    none = torch.zeros(1, dtype=torch.float64)
    first = [
        levels[0:1],
        policy.shear_across(levels[1:2], none - 0.3),
        policy.autocontrast(levels[2:3], none),
        policy.rotate(levels[3:4], none + 30),
        policy.rotate(levels[4:5], none - 30),
        policy.equalize(levels[5:6], none),
    ]
    # The second one is colour for all, by the largest strength less.
    assert torch.equal(made, policy.colour(torch.cat(first), torch.full((6,), 0.1, dtype=torch.float64)))


def test_a_trivial_augmentation_is_one_operation_of_a_drawn_strength() -> None:
    levels = some_levels(3)[:2]
    made = trivial_augment(
        TrivialAugment(name="trivial-augment"), levels, chosen([5.5 / 14, 0.999, 0.9], [5.5 / 14, 0.5, 0.1]), STORED
    )
    assert torch.equal(made, policy.rotate(levels, torch.tensor([-135.0, 15 / 30 * 135], dtype=torch.float64)))


def test_every_operation_is_drawn_about_as_often() -> None:
    draws = drawn(20_000)(3)
    counts = (draws[:, 0] * 14).long().bincount(minlength=14)
    assert counts.min() > 0.9 * 20_000 / 14
    made = trivial_augment(
        TrivialAugment(name="trivial-augment"), torch.full((2_000, 1, 4, 4), 99, dtype=torch.uint8), drawn(2_000), STORED
    )
    assert 0.3 < (made == 99).flatten(1).all(dim=1).float().mean() < 0.9


@pytest.mark.parametrize(
    ("value_range", "dtype"), [((0.0, 1.0), torch.float32), ((0.0, 16.0), torch.uint8), ((-2.5, 3.0), torch.float32)]
)
def test_images_of_another_range_are_of_256_levels_and_come_back(value_range: tuple[float, float], dtype: torch.dtype) -> None:
    low, high = value_range
    images = torch.linspace(low, high, 17, dtype=torch.float64).view(1, 1, 1, 17).to(dtype)
    stored = Stored(value_range=value_range)
    levels = to_levels(images, stored)
    assert (levels.min().item(), levels.max().item()) == (0, 255)
    back = from_levels(levels, images, stored)
    assert back.dtype is torch.float32
    assert (back - images).abs().max() <= (high - low) / 255 / 2 + 1e-6


def test_transparency_moves_with_the_pixels_and_has_no_colour() -> None:
    levels = some_levels(4)
    by = torch.full((len(levels),), 0.3, dtype=torch.float64)
    assert torch.equal(policy.equalize(levels, by)[:, 3], levels[:, 3])
    assert torch.equal(policy.equalize(levels, by)[:, :3], policy.equalize(levels[:, :3], by))
    assert torch.equal(policy.shear_across(levels, by)[:, 3:], policy.shear_across(levels[:, 3:], by))
