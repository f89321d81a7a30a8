"""Fits the preprocessing of a network that was trained before to the images of a dataset: their range, channels and size."""

from dataclasses import replace
from typing import Literal

from service.spec.shapes import InputShape
from worker.data.errors import UnfitInputs
from worker.data.images.pixel_range import UNIT, PixelRange
from worker.data.images.pixels import PixelPreprocessing
from worker.data.images.processor_pixels import ProcessorPixels
from worker.data.preprocessing import RawInputs, first

_LIBRARY_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def fit_own_pixels(
    preprocessing: PixelPreprocessing, images: RawInputs, stored: PixelRange, *, input_shape: InputShape
) -> PixelPreprocessing:
    """Fits the preprocessing of a network that was trained here on images of ``input_shape`` to images in the range ``stored``.

    Raises:
        UnfitInputs: the images have another shape, or a range that no factor makes the network's.
    """
    shape = preprocessing.input_shape(images)
    if shape != input_shape:
        raise UnfitInputs(
            f"it reads images of {shape_text(input_shape)}, the dataset has {shape_text(shape)} (channels x height x width)"
        )
    if preprocessing.pixels is None:
        return preprocessing
    scale = _scale(stored, preprocessing.pixels, seen=preprocessing.pixels.brightest)
    return preprocessing if scale == 1 else replace(preprocessing, rescale_factor=preprocessing.rescale_factor * scale)


def fit_processor_pixels(preprocessing: ProcessorPixels, images: RawInputs, stored: PixelRange) -> ProcessorPixels:
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
        made = fitted(first(images, 1))
    except _LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise UnfitInputs(f"its {name} cannot process the dataset's images: {reason}") from error
    if made.shape[1] != channels:
        raise UnfitInputs(f"its {name} makes images of {made.shape[1]} channels, and the network reads {channels}")
    return fitted


def _in_range(preprocessing: ProcessorPixels, images: RawInputs, stored: PixelRange) -> ProcessorPixels:
    reads = preprocessing.reads(images)
    shown = stored if reads is None else reads
    resized_as: Literal["8 bits", "0 to 1", "stored"] = "0 to 1" if shown == UNIT else "stored" if shown.is_measured else "8 bits"
    return replace(preprocessing, scale=1.0 if reads is None else _scale(stored, reads, seen=reads.high), resized_as=resized_as)


def shape_text(shape: InputShape) -> str:
    """Writes a shape for messages: ``3x32x32``."""
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else str(shape)


def _scale(stored: PixelRange, reads: PixelRange, *, seen: float | None) -> float:
    """The factor of the pixels; ``seen`` is the brightest that the network was trained on, None if unknown."""
    scale = stored.factor_to(reads)
    if scale is None:
        raise UnfitInputs(
            f"the dataset's pixels are from {stored}, the network reads them from {reads}, and nothing says which of theirs are "
            f"black and white: {_REMEDY_MEASURED if reads.is_measured else _REMEDY}"
        )
    if seen is None or stored.brightest is None or stored.is_measured or stored.counts_as(reads) or reads.counts_as(stored):
        return scale
    if stored.is_doubtful and stored.is_darker_than(seen / scale):
        raise UnfitInputs(
            f"the dataset's 8-bit images have no pixel above {stored.brightest:g}, and the network was trained on pixels up to "
            f"{seen / scale:.4g} of them: {_REMEDY_DARK.format(stored.brightest)}"
        )
    if reads.is_doubtful and reads.is_darker_than(stored.brightest * scale):
        raise UnfitInputs(
            f"the dataset's pixels are up to {stored.brightest:.4g}, which the network would read as "
            f"{stored.brightest * scale:.4g}, and it was trained on 8-bit images up to {seen:g}: "
            f"store the images as those were, as 8-bit ones up to {seen:g}"
        )
    return scale


_REMEDY = "store the images as 8-bit ones (uint8), or as floats from 0 (black) to 1 (white)"
_REMEDY_MEASURED = "store the images as floats of the range that the network reads, as those were that it was trained on"
_REMEDY_DARK = (
    "store them as floats from 0 (black) to 1 (white), which are the pixels divided by {0:g} if that is white, or by 255 if they "
    "are as dark as that"
)
