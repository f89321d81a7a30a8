"""Fits an image classifier that was trained before to a job's images: what it reads of them, told before anything trains."""

import torch

from service.spec.warning_message import WarningMessage
from worker.data import Data, PixelPreprocessing, Preprocessing, first
from worker.data.images.fit_pixels import fit_own_pixels, fit_processor_pixels, shape_text
from worker.data.images.processor_pixels import ProcessorPixels
from worker.data.tensors import only_tensor
from worker.errors import JobFault
from worker.models import LoadedNetwork


def fit_images(loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
    """The network's own preprocessing, fitted to the data's images.

    Raises:
        UnfitInputs: it does not read images of that shape or range.
        JobFault: the network cannot read what its image processor makes of them.
    """
    images = data.splits["train"].inputs
    match loaded.preprocessing:
        case PixelPreprocessing() as own:
            return fit_own_pixels(own, images, data.pixel_range, input_shape=loaded.input_shape)
        case ProcessorPixels() as processor:
            fitted = fit_processor_pixels(processor, images, data.pixel_range)
            _try(loaded, fitted, data, source=source)
            return fitted
    return loaded.preprocessing


def white_warnings(loaded: LoadedNetwork, data: Data, *, source: str) -> tuple[WarningMessage, ...]:
    """What the white of the images is held to be by what the teacher reads, where nothing else says it."""
    match loaded.preprocessing:
        case PixelPreprocessing():
            reads = loaded.preprocessing.pixels
        case ProcessorPixels():
            reads = loaded.preprocessing.reads(data.splits["train"].inputs)
        case _:
            return ()
    if reads is None:
        return ()
    stored = data.pixel_range
    is_supposed = stored.counts_as(reads)
    if not is_supposed and not reads.counts_as(stored):
        return ()
    message = (
        f"No pixel of the dataset is above {stored.brightest:g}, and the teacher {source} was trained on pixels from "
        f"{reads if is_supposed else stored}: the images are read as those were, unchanged."
    )
    if is_supposed and not reads.is_measured:
        message += " If another value is their white, store them as floats from 0 (black) to 1 (white)."
    return (WarningMessage(code="white_by_evidence", message=message),)


def _try(loaded: LoadedNetwork, preprocessing: ProcessorPixels, data: Data, *, source: str) -> None:
    """Runs the network on one image: the processor may leave it at a size that the network does not read."""
    inputs = preprocessing(first(data.splits["train"].inputs, 1))
    try:
        with torch.no_grad():
            loaded.network(inputs)
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        shape = shape_text(tuple(only_tensor(inputs).shape[1:]))
        message = (
            f"The teacher {source} cannot read images of {shape}, as its image processor makes them of the dataset's: {reason}"
        )
        hint = "Have its preprocessor_config.json resize to the size that it was trained on: do_resize and size."
        raise JobFault("invalid_spec", message, hint=hint) from error
