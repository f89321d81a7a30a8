"""Fits a network that was trained before to a job's data: what it reads of these samples, told before anything trains."""

from dataclasses import replace
from typing import NoReturn

import torch

from service.spec.shapes import InputShape
from worker.data import Data, PixelPreprocessing, Preprocessing, first
from worker.data.errors import UnfitInputs
from worker.data.fit_pixels import fit_own_pixels, fit_processor_pixels
from worker.data.processor_pixels import ProcessorPixels
from worker.data.sound import SoundPreprocessing, longest_seconds
from worker.data.waveform import RawWaveform
from worker.errors import JobFault
from worker.models.folder import LoadedNetwork


def fit_inputs(loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
    """The network's own preprocessing, fitted to the data's samples.

    Raises:
        JobFault: the network cannot read them.
    """
    preprocessing, inputs = loaded.preprocessing, data.splits["train"].inputs
    try:
        match preprocessing:
            case PixelPreprocessing():
                return fit_own_pixels(preprocessing, inputs, data.pixel_range(), input_shape=loaded.input_shape)
            case ProcessorPixels():
                fitted = fit_processor_pixels(preprocessing, inputs, data.pixel_range())
                _try(loaded, fitted, data, source=source)
                return fitted
            case SoundPreprocessing(features=RawWaveform()):
                # A network of waveforms reads clips of any length: it gets that of this job's data.
                seconds = longest_seconds(inputs, most_seconds=data.clip_seconds)
                return replace(preprocessing, num_samples=round(seconds * preprocessing.rate))
    except UnfitInputs as error:
        _refuse(f"The teacher {source} does not fit the dataset: {error}.", error, hint=_HINT)
    return preprocessing


_HINT = "Change the dataset or the teacher's preprocessor_config.json as it says, or choose another teacher."


def _try(loaded: LoadedNetwork, preprocessing: ProcessorPixels, data: Data, *, source: str) -> None:
    """Runs the network on one image: the processor may leave it at a size that the network does not read."""
    inputs = preprocessing(first(data.splits["train"].inputs, 1))
    try:
        with torch.no_grad():
            loaded.network(inputs)
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        message = (
            f"The teacher {source} cannot read images of {_text(tuple(inputs.shape[1:]))}, as its image processor makes them of "
            f"the dataset's: {reason}"
        )
        hint = "Have its preprocessor_config.json resize to the size that it was trained on: do_resize and size."
        _refuse(message, error, hint=hint)


def _refuse(message: str, error: Exception, *, hint: str) -> NoReturn:
    raise JobFault("invalid_spec", message, hint=hint) from error


def _text(shape: InputShape) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else str(shape)
