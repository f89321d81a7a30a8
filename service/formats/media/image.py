"""Images: their shapes and layouts, checks of their values. N samples, H height, W width, C channels."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.media.image_file import MAX_IMAGE_VALUES, MIN_SIDE

MAX_CHANNELS = 4

Layout = Literal["HW", "HWC", "CHW"]


@dataclass(frozen=True)
class ImageShape:
    """The shape of one image, and the layout of its values in the file."""

    height: int
    width: int
    channels: int
    layout: Layout

    @property
    def num_values(self) -> int:
        return self.height * self.width * self.channels

    def __str__(self) -> str:
        return f"{self.height}x{self.width} pixels with {self.channels} channel{'' if self.channels == 1 else 's'}"

    def to_channels_first(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """Transposes images (N, …) as stored to (N, C, H, W)."""
        match self.layout:
            case "HW":
                return images[:, None]
            case "HWC":
                return images.transpose(0, 3, 1, 2)
            case "CHW":
                return images


def image_shape(shape: tuple[int, ...], *, place: str) -> ImageShape:
    """Interprets the shape of one image, (H, W), (H, W, C) or (C, H, W).

    If both the first and the last side could be channels, it is the one whose other two sides are equal, else the last.

    Raises:
        InvalidFile: it is not the shape of an image.
    """
    written = "x".join(map(str, shape)) or "a single number"
    if len(shape) == 2:
        found = ImageShape(shape[0], shape[1], 1, "HW")
    elif len(shape) == 3:
        last, first = 1 <= shape[2] <= MAX_CHANNELS, 1 <= shape[0] <= MAX_CHANNELS
        if not last and not first:
            raise InvalidFile(f"{place} is {written}: no side is the channels, of which there may be 1 to {MAX_CHANNELS}")
        if last and (not first or shape[0] == shape[1] or shape[1] != shape[2]):
            found = ImageShape(shape[0], shape[1], shape[2], "HWC")
        else:
            found = ImageShape(shape[1], shape[2], shape[0], "CHW")
    else:
        raise InvalidFile(
            f"{place} is {written}; an image is (height, width), (height, width, channels) or (channels, height, width)"
        )
    if min(found.height, found.width) < MIN_SIDE:
        raise InvalidFile(f"{place} is {written}: images have at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if math.prod(shape) > MAX_IMAGE_VALUES:
        raise InvalidFile(f"{place} is {written}: more than {MAX_IMAGE_VALUES:,} values an image; make the images smaller")
    return found


def check_values(images: NDArray[np.generic], *, place: str, first_row: int) -> NDArray[np.generic]:
    """Converts pixels (N, …) other than uint8 to float32.

    Raises:
        InvalidFile: a value is NaN, infinite or beyond float32; the text names the row.
    """
    if images.dtype == np.uint8:
        return images
    with np.errstate(over="ignore", invalid="ignore"):
        images = images.astype(np.float32)
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        row = first_row + int(np.argmin(finite))
        raise InvalidFile(f"{place}, row {row}: the image holds NaN or an infinite number; remove or mend that row")
    return images
