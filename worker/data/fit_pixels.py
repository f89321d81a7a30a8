"""Fits the preprocessing of a network that was trained before to the images of a dataset: their range, channels and size."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from service.spec.shapes import InputShape
from worker.data.errors import UnfitInputs
from worker.data.pixel_range import UNIT, PixelRange
from worker.data.pixels import PixelPreprocessing
from worker.data.processor_pixels import ProcessorPixels

_LIBRARY_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def fit_own_pixels(
    preprocessing: PixelPreprocessing, images: Tensor, stored: PixelRange, *, input_shape: InputShape
) -> PixelPreprocessing:
    """Fits the preprocessing of a network that was trained here on images of ``input_shape`` to images in the range ``stored``.

    Raises:
        UnfitInputs: the images have another shape, or a range that no factor makes the network's.
    """
    shape = preprocessing.input_shape(images)
    if shape != input_shape:
        raise UnfitInputs(f"it reads images of {_text(input_shape)}, the dataset has {_text(shape)} (channels x height x width)")
    if preprocessing.pixels is None:
        return preprocessing
    scale = _scale(stored, preprocessing.pixels)
    return preprocessing if scale == 1 else replace(preprocessing, rescale_factor=preprocessing.rescale_factor * scale)


def fit_processor_pixels(preprocessing: ProcessorPixels, images: Tensor, stored: PixelRange) -> ProcessorPixels:
    """Fits an image processor of the library to images (N, C, H, W) in the range ``stored``.

    Raises:
        UnfitInputs: the processor cannot read them, or their range is not that which it reads.
    """
    channels = preprocessing.num_channels
    if images.shape[1] != channels and (channels != 3 or images.shape[1] not in (1, 4)):
        raise UnfitInputs(
            f"it reads images of {channels} channels and the dataset's have {images.shape[1]}: convert them, "
            f"for instance with Pillow's image.convert({'L' if channels == 1 else 'RGB'!r})"
        )
    name = type(preprocessing.processor).__name__.removesuffix("Pil")
    try:
        fitted = _in_range(preprocessing, images, stored)
        made = fitted(images[:1])
    except _LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise UnfitInputs(f"its {name} cannot process the dataset's images: {reason}") from error
    if made.shape[1] != channels:
        raise UnfitInputs(f"its {name} makes images of {made.shape[1]} channels, and the network reads {channels}")
    return fitted


def _in_range(preprocessing: ProcessorPixels, images: Tensor, stored: PixelRange) -> ProcessorPixels:
    reads = preprocessing.reads(images)
    shown = stored if reads is None else reads
    resized_as: Literal["8 bits", "0 to 1", "stored"] = "0 to 1" if shown == UNIT else "stored" if shown.is_measured else "8 bits"
    return replace(preprocessing, scale=1.0 if reads is None else _scale(stored, reads), resized_as=resized_as)


def _text(shape: InputShape) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else str(shape)


def _scale(stored: PixelRange, reads: PixelRange) -> float:
    scale = stored.factor_to(reads)
    if scale is None:
        raise UnfitInputs(
            f"the dataset's pixels are from {stored}, the network reads them from {reads}, and nothing says which of theirs are "
            "black and white: store the images as 8-bit ones (uint8), or as floats from 0 (black) to 1 (white)"
        )
    return scale
