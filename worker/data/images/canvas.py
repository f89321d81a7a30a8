"""Image files on a canvas: decoded and fitted to one size and kind of pixels, whole or by a window of each.

A canvas is the stored form of images of several sizes: behind it everything reads them as it reads images of one size. Resizing
is Pillow's, as that of the image processors of transformers without torchvision. What is here can be pickled, and is a function
of its arguments alone. B batch, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from service.formats import EncodedImage
from service.formats.media.image_file import channels_first, read_image_as
from service.spec.canvas import Fit, Interpolation

RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Canvas:
    """One size and one kind of pixels."""

    height: int
    width: int
    channels: int
    """1 for grey, 3 for RGB, 4 with transparency. To RGB transparency is left away, and grey is three times the same."""
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"


def fit_images(images: Sequence[EncodedImage], canvas: Canvas, windows: Tensor | None = None) -> Tensor:
    """Decodes images and fits each to the canvas: (B, C, H, W) uint8.

    ``windows`` (B, 4) are boxes (top, left, height, width) of the whole images: they are stretched to the canvas instead.
    """
    made = torch.empty(len(images), canvas.channels, canvas.height, canvas.width, dtype=torch.uint8)
    boxes = [None] * len(images) if windows is None else windows.tolist()
    for row, (image, window) in enumerate(zip(images, boxes, strict=True)):
        made[row].numpy()[:] = fit_image(image.data, canvas, window)
    return made


def fit_image(data: bytes, canvas: Canvas, window: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Decodes one image and fits it, or a window of it, to the canvas: (C, H, W)."""
    image = read_image_as(data, canvas.channels)
    if window is not None:
        top, left, height, width = window
        image = image.crop((left, top, left + width, top + height))
        return _pixels(_stretched(image, canvas))
    match canvas.fit:
        case "stretch":
            return _pixels(_stretched(image, canvas))
        case "crop":
            return _pixels(_covering(image, canvas))
        case "pad":
            return _pixels(_within(image, canvas))


def _stretched(image: Image.Image, canvas: Canvas) -> Image.Image:
    return image.resize((canvas.width, canvas.height), RESAMPLING[canvas.interpolation])


def _covering(image: Image.Image, canvas: Canvas) -> Image.Image:
    """Resizes until the shorter side fits, the longer cut down to whole pixels, and cuts the middle out, as transformers does."""
    height, width = image.height, image.width
    if canvas.height * width >= canvas.width * height:
        sides = canvas.height, max(canvas.width, canvas.height * width // height)
    else:
        sides = max(canvas.height, canvas.width * height // width), canvas.width
    resized = image.resize((sides[1], sides[0]), RESAMPLING[canvas.interpolation])
    top, left = (sides[0] - canvas.height) // 2, (sides[1] - canvas.width) // 2
    return resized.crop((left, top, left + canvas.width, top + canvas.height))


def _within(image: Image.Image, canvas: Canvas) -> Image.Image:
    """Resizes until the longer side fits, and puts it in the middle of black, rounded as transformers does."""
    scale = min(canvas.height / image.height, canvas.width / image.width)
    height, width = max(1, int(image.height * scale)), max(1, int(image.width * scale))
    resized = image.resize((width, height), RESAMPLING[canvas.interpolation])
    made = Image.new(image.mode, (canvas.width, canvas.height))
    made.paste(resized, ((canvas.width - width + 1) // 2, (canvas.height - height + 1) // 2))
    return made


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    return channels_first(np.asarray(image))


@dataclass(frozen=True)
class WholeImages:
    """Image files and the canvas that they are read on; whoever reads them may take windows of the whole images."""

    images: Sequence[EncodedImage]
    canvas: Canvas

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, rows: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, rows: slice) -> "WholeImages": ...
    def __getitem__(self, rows: int | slice) -> "EncodedImage | WholeImages":
        return replace(self, images=self.images[rows]) if isinstance(rows, slice) else self.images[rows]

    @property
    def sides(self) -> Tensor:
        """Height and width of each image, (B, 2) int64."""
        return torch.tensor([[image.height, image.width] for image in self.images], dtype=torch.int64).view(-1, 2)

    def take(self, rows: Tensor) -> "WholeImages":
        """Selects the images at ``rows`` (B,)."""
        return replace(self, images=[self.images[row] for row in rows.tolist()])

    def fitted(self) -> Tensor:
        """The images on the canvas, (B, C, H, W) uint8."""
        return fit_images(self.images, self.canvas)

    def windows(self, windows: Tensor) -> Tensor:
        """Windows (B, 4) of the whole images, on the canvas: (B, C, H, W) uint8."""
        return fit_images(self.images, self.canvas, windows)
