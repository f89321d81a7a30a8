"""Halvings that an image has no room for."""

import pytest

from worker.models.strides import fitting_strides


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (32, [2, 1, 2, 2, 2]),
        (17, [2, 1, 2, 2, 2]),
        (16, [1, 1, 2, 2, 2]),
        (9, [1, 1, 2, 2, 2]),
        (8, [1, 1, 1, 2, 2]),
        (2, [1] * 5),
    ],
)
def test_the_first_halvings_are_left_out_where_the_image_has_no_room_for_all(pixels: int, expected: list[int]) -> None:
    assert fitting_strides([2, 1, 2, 2, 2], pixels=pixels) == expected


@pytest.mark.parametrize("pixels", range(2, 40))
def test_two_pixels_stay_and_one_halving_more_would_leave_one(pixels: int) -> None:
    strides = fitting_strides([2] * 6, pixels=pixels)
    for stride in strides:
        pixels = -(-pixels // stride)
    assert pixels == 2
