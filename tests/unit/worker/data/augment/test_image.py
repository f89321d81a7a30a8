"""What each operation on images does to them, pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from service.spec.image_augment import Affine, Blur, Colour, Crop, Cutout, Flip, Greyscale, RandomErasing, VerticalFlip
from tests.unit.worker.data.augment.draws import chosen, drawn
from worker.data.augment import Stored
from worker.data.augment.image import affine, blur, colour, crop, cutout, flip, greyscale, random_erasing, vertical_flip

STORED = Stored(value_range=(0.0, 255.0))
BOTH = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels of 1 to 255: none is black."""
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@BOTH
@CHANNELS
@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_crop_is_a_window_of_the_framed_image(dtype: torch.dtype, channels: int, mode: str) -> None:
    batch = images(4, channels, 5, 7, dtype=dtype)
    spec = Crop.model_validate({"name": "crop", "padding": 2, "mode": mode})
    # Of five places for a corner: the first, the last, the middle one (the image itself), and one in between.
    cropped = crop(spec, batch, chosen([0.0, 0.0], [0.99, 0.99], [0.5, 0.5], [0.2, 0.79]), STORED)
    framed = functional.pad(batch.float(), (2, 2, 2, 2), mode="constant" if mode == "zero" else "reflect").to(dtype)
    assert cropped.dtype is dtype
    for sample, (top, left) in enumerate([(0, 0), (4, 4), (2, 2), (1, 3)]):
        assert torch.equal(cropped[sample], framed[sample, :, top : top + 5, left : left + 7])
    assert torch.equal(cropped[2], batch[2])


def test_crop_puts_black_into_the_frame_whatever_number_black_is() -> None:
    cropped = crop(Crop(name="crop", padding=1), images(1, 1, 2, 2), chosen([0.0, 0.5]), Stored(value_range=(-3.0, 255.0)))
    assert cropped[0, 0, 0].tolist() == [-3.0, -3.0]


def test_a_mirror_shows_what_lies_before_it_again_and_again() -> None:
    batch = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    cropped = crop(Crop(name="crop", padding=6, mode="reflect"), batch, chosen([0.99, 0.0]), STORED)
    assert cropped.tolist() == [[[[3.0, 2.0, 1.0]]]]  # … 3 2 | 1 2 3 | 2 1 …: six to the left
    assert torch.equal(crop(Crop(name="crop", padding=5, mode="reflect"), batch, chosen([0.0, 0.5]), STORED), batch)


def test_crop_takes_every_window_about_as_often() -> None:
    place = torch.arange(25.0).view(1, 1, 5, 5).expand(9_000, 1, 5, 5)
    centres = crop(Crop(name="crop", padding=1), place, drawn(9_000), STORED)[:, 0, 2, 2]
    counts = centres.long().bincount(minlength=25)
    assert sorted(counts.nonzero().flatten().tolist()) == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    assert all(900 < count < 1_100 for count in counts[counts > 0].tolist())


@BOTH
@CHANNELS
def test_flip_turns_the_columns_round_and_nothing_else(dtype: torch.dtype, channels: int) -> None:
    batch = images(2, channels, 3, 4, dtype=dtype)
    flipped = flip(Flip(name="flip", probability=0.25), batch, chosen([0.24], [0.25]), STORED)
    assert flipped.dtype is dtype
    assert torch.equal(flipped[0], batch[0].flip(2))
    assert torch.equal(flipped[1], batch[1])


def test_flip_happens_as_often_as_it_says() -> None:
    batch = torch.tensor([0.0, 1.0]).expand(10_000, 1, 1, 2)
    flipped = flip(Flip(name="flip", probability=0.3), batch, drawn(10_000), STORED)
    assert flipped[:, 0, 0, 0].mean().item() == pytest.approx(0.3, abs=0.015)


@BOTH
@CHANNELS
def test_cutout_hides_a_square_about_its_centre_and_what_sticks_out_is_lost(dtype: torch.dtype, channels: int) -> None:
    batch = images(3, channels, 6, 8, dtype=dtype)
    spec = Cutout(name="cutout", size=3, fill=0.5)
    cut = cutout(spec, batch, chosen([0.5, 0.5], [0.0, 0.99], [0.99, 0.0]), STORED)  # centres (3, 4), (0, 7), (5, 0)
    expected = batch.clone()
    for sample, rows, columns in ((0, slice(2, 5), slice(3, 6)), (1, slice(0, 2), slice(6, 8)), (2, slice(4, 6), slice(0, 2))):
        expected[sample, :, rows, columns] = 128 if dtype is torch.uint8 else 127.5
    assert torch.equal(cut, expected)


def test_cutout_leaves_the_batch_that_it_was_given_alone() -> None:
    batch = images(1, 1, 4, 4)
    before = batch.clone()
    cutout(Cutout(name="cutout", size=2), batch, chosen([0.5, 0.5]), STORED)
    assert torch.equal(batch, before)


@BOTH
def test_brightness_is_a_factor_and_ends_at_the_brightest_value(dtype: torch.dtype) -> None:
    spec = Colour(name="colour", brightness=0.5, contrast=0.0, saturation=0.0)
    batch = images(2, 3, 2, 3, dtype=dtype)
    coloured = colour(spec, batch, chosen([0.0, 0.5, 0.5], [0.75, 0.5, 0.5]), STORED)  # 0.5 and 1.25 times as bright
    assert coloured.dtype is torch.float32
    torch.testing.assert_close(coloured[0], batch[0].float() / 2)
    torch.testing.assert_close(coloured[1], (batch[1].float() * 1.25).clamp(max=255))


def test_brightness_counts_from_black_where_black_is_not_zero() -> None:
    spec = Colour(name="colour", brightness=0.5, contrast=0.0, saturation=0.0)
    coloured = colour(spec, torch.tensor([[[[-1.0, 1.0]]]]), chosen([0.0, 0.5, 0.5]), Stored(value_range=(-1.0, 1.0)))
    assert coloured.tolist() == [[[[-1.0, 0.0]]]]


def test_contrast_is_a_factor_of_the_distance_from_the_mean_grey() -> None:
    spec = Colour(name="colour", brightness=0.0, contrast=1.0, saturation=0.0)
    batch = images(1, 3, 2, 2)
    red, green, blue = batch[0]
    mean = (0.299 * red + 0.587 * green + 0.114 * blue).mean()
    torch.testing.assert_close(colour(spec, batch, chosen([0.5, 0.25, 0.5]), STORED)[0], (batch[0] + mean) / 2)
    flat = colour(spec, batch, chosen([0.5, 0.0, 0.5]), STORED)
    torch.testing.assert_close(flat, mean.expand(1, 3, 2, 2))


def test_saturation_is_a_factor_of_the_distance_from_each_pixels_grey() -> None:
    spec = Colour(name="colour", brightness=0.0, contrast=0.0, saturation=1.0)
    batch = images(1, 3, 2, 2)
    red, green, blue = batch[0]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(colour(spec, batch, chosen([0.5, 0.5, 0.0]), STORED)[0], grey.expand(3, 2, 2))
    one_channel = images(1, 1, 2, 2)
    assert torch.equal(colour(spec, one_channel, chosen([0.5, 0.5, 0.0]), STORED), one_channel)


def turning(**changes: float) -> Affine:
    return Affine.model_validate({"name": "affine", "degrees": 0.0, "shift": 0.0, "scale": 0.0} | changes)


MIDDLE = 0.5
"""The number that turns, scales and moves nothing."""


@BOTH
@CHANNELS
def test_affine_without_angle_scale_and_shift_is_the_image(dtype: torch.dtype, channels: int) -> None:
    batch = images(2, channels, 5, 8, dtype=dtype)
    torch.testing.assert_close(affine(turning(), batch, drawn(2), STORED), batch.float(), atol=1e-3, rtol=0)


def test_affine_turns_clockwise_about_the_centre() -> None:
    batch = images(2, 3, 5, 5)
    turned = affine(turning(degrees=90), batch, chosen([1.0, MIDDLE, MIDDLE, MIDDLE], [0.0, MIDDLE, MIDDLE, MIDDLE]), STORED)
    torch.testing.assert_close(turned[0], batch[0].rot90(-1, (1, 2)), atol=1e-2, rtol=0)
    torch.testing.assert_close(turned[1], batch[1].rot90(1, (1, 2)), atol=1e-2, rtol=0)


def test_affine_keeps_right_angles_in_images_that_are_not_square() -> None:
    batch = images(1, 1, 3, 7)
    turned = affine(turning(degrees=90), batch, chosen([1.0, MIDDLE, MIDDLE, MIDDLE]), STORED)
    torch.testing.assert_close(turned[:, :, :, 2:5], batch[:, :, :, 2:5].rot90(-1, (2, 3)), atol=1e-2, rtol=0)
    assert turned[:, :, :, [0, 1, 5, 6]].abs().max() < 1e-2  # from above and below the image: black


def test_affine_moves_down_and_right_and_black_comes_in() -> None:
    batch = images(1, 1, 4, 6)
    moved = affine(turning(shift=0.5), batch, chosen([MIDDLE, MIDDLE, 0.75, 1.0]), Stored(value_range=(-9.0, 255.0)))
    expected = torch.full_like(batch, -9.0)
    expected[:, :, 1:, 3:] = batch[:, :, :3, :3]
    torch.testing.assert_close(moved, expected, atol=1e-2, rtol=0)


def test_affine_makes_larger_about_the_centre() -> None:
    ramp = torch.arange(7.0).expand(1, 1, 5, 7)
    larger = affine(turning(scale=0.5), ramp, chosen([MIDDLE, 1.0, MIDDLE, MIDDLE]), STORED)
    torch.testing.assert_close(larger, (3 + (ramp - 3) / 1.5), atol=1e-4, rtol=0)


@BOTH
def test_vertical_flip_turns_the_rows_round(dtype: torch.dtype) -> None:
    batch = images(2, 3, 5, 4, dtype=dtype)
    flipped = vertical_flip(VerticalFlip(name="vertical-flip"), batch, chosen([0.49], [0.5]), STORED)
    assert torch.equal(flipped, torch.stack([batch[0].flip(1), batch[1]]))


@BOTH
@CHANNELS
def test_an_erased_box_has_the_share_that_was_drawn(dtype: torch.dtype, channels: int) -> None:
    batch = images(2_000, channels, 30, 40, dtype=dtype)
    spec = RandomErasing(name="random-erasing", probability=0.5, scale=[0.1, 0.2])
    erased = random_erasing(spec, batch, drawn(2_000), STORED)
    assert erased.dtype is dtype
    holes = (erased == 0).all(dim=1)
    shares = holes.flatten(1).double().mean(dim=1)
    assert 0.45 < (shares > 0).double().mean() < 0.55
    assert shares[shares > 0].min() > 0.09
    assert shares.max() < 0.22
    assert torch.equal(torch.where(holes[:, None], batch, erased), batch)


def test_greyscale_images_are_pillows_in_every_channel() -> None:
    batch = images(2, 4, 5, 6, dtype=torch.uint8)
    made = greyscale(Greyscale(name="greyscale"), batch, chosen([0.1], [0.9]), STORED)
    expected = np.asarray(Image.fromarray(batch[0, :3].permute(1, 2, 0).numpy()).convert("L"))
    assert all(np.array_equal(channel.numpy(), expected) for channel in made[0, :3])
    assert torch.equal(made[0, 3], batch[0, 3])
    assert torch.equal(made[1], batch[1])


@BOTH
def test_a_blur_is_scipys_gaussian(dtype: torch.dtype) -> None:
    batch = images(3, 2, 9, 7, dtype=dtype)
    made = blur(Blur(name="blur", sigma=[0.5, 2.5]), batch, chosen([0.1, 0.0], [0.1, 0.999], [0.9, 0.3]), STORED)
    assert made.dtype is dtype
    for sample, sigma in ((0, 0.5), (1, 0.5 + 2 * 0.999)):
        expected = gaussian_filter(batch[sample].numpy().astype(float), (0, sigma, sigma), mode="mirror", truncate=4.0)
        np.testing.assert_allclose(made[sample].numpy(), expected, atol=0.51 if dtype is torch.uint8 else 1e-3)
    assert torch.equal(made[2], batch[2])
