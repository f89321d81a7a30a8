"""Random windows: drawn as published, cut and resized with Pillow's very pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from service.spec.image_augment import RandomResizedCrop
from tests.unit.worker.data.augment.draws import drawn
from worker.data.augment import Stored
from worker.data.augment.window import NUM_DRAWS, random_resized_crop, random_windows, resize_windows

SPEC = RandomResizedCrop(name="random-resized-crop")


@pytest.mark.parametrize(("height", "width"), [(31, 20), (5, 27), (31, 90), (60, 27), (24, 20), (5, 3), (60, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_cut_and_resized_as_pillow_does_it(channels: int, height: int, width: int) -> None:
    images = torch.randint(0, 256, (40, channels, 31, 27), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    windows = random_windows(SPEC.scale, SPEC.ratio, torch.tensor([[31, 27]]).expand(40, 2), drawn(40)(NUM_DRAWS))
    windows[:3] = torch.tensor([[0, 0, 31, 27], [30, 26, 1, 1], [0, 5, 31, 2]])
    windows[3:20, 0], windows[3:20, 2] = (0, 31) if height == 31 else (windows[3:20, 0], windows[3:20, 2])
    windows[3:20, 1], windows[3:20, 3] = (0, 27) if width == 27 else (windows[3:20, 1], windows[3:20, 3])
    made = resize_windows(images, windows, height=height, width=width)
    for image, window, resized in zip(images, windows.tolist(), made, strict=True):
        top, left, high, wide = window
        for channel, plane in zip(image, resized, strict=True):
            cut = Image.fromarray(channel.numpy()).crop((left, top, left + wide, top + high))
            expected = np.asarray(cut.resize((width, height), Image.Resampling.BILINEAR))
            one_side_alone = high == height or wide == width
            np.testing.assert_allclose(plane.numpy().astype(int), expected.astype(int), atol=0 if one_side_alone else 1)


def test_floats_are_resized_without_being_rounded() -> None:
    images = torch.rand(6, 2, 9, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2
    windows = torch.tensor([[0, 0, 9, 8]] * 6)
    made = resize_windows(images, windows, height=5, width=11)
    expected = [
        np.asarray(Image.fromarray(plane.numpy()).resize((11, 5), Image.Resampling.BILINEAR)) for plane in images.flatten(0, 1)
    ]
    np.testing.assert_allclose(made.flatten(0, 1).numpy(), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_windows_have_the_shares_and_proportions_that_are_asked_for() -> None:
    count = 4_000
    windows = random_windows([0.1, 0.5], [0.5, 2.0], torch.tensor([[200, 150]]).expand(count, 2), drawn(count)(NUM_DRAWS))
    tops, lefts, heights, widths = windows.double().unbind(1)
    shares, ratios = heights * widths / (200 * 150), widths / heights
    assert shares.min() > 0.098
    assert shares.max() < 0.503
    assert abs(shares.mean() - 0.3) < 0.02
    assert ratios.min() > 0.49
    assert ratios.max() < 2.02
    assert abs(ratios.log().mean()) < 0.05
    assert tops.min() == lefts.min() == 0
    assert (tops + heights).max() == 200
    assert (lefts + widths).max() == 150


@pytest.mark.parametrize(
    ("sides", "window"), [((10, 100), [0, 43, 10, 13]), ((100, 10), [43, 0, 13, 10]), ((40, 40), [0, 0, 40, 40])]
)
def test_where_no_window_fits_it_is_the_largest_in_the_middle(sides: tuple[int, int], window: list[int]) -> None:
    # A window of nearly the whole area of a square image fits, of the oblong ones none does.
    found = random_windows([1.0, 1.0], [0.75, 4 / 3], torch.tensor([sides]), torch.full((1, NUM_DRAWS), 0.5))
    assert found.tolist() == [window]


def test_the_shape_and_the_type_of_a_batch_stay() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 12)).to(torch.uint8)
    made = random_resized_crop(SPEC, images, drawn(5), Stored())
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert not torch.equal(made, images)
