"""Fits a network that was trained before to a job's data: what it reads of these samples, told before anything trains."""

from dataclasses import replace
from typing import NoReturn

import torch
from torch import nn

from service.formats import Waveform
from service.spec.transformers_fit import samples_for
from service.spec.warning_message import WarningMessage
from worker.data import Data, PixelPreprocessing, Preprocessing, first
from worker.data.errors import UnfitInputs
from worker.data.fit_pixels import fit_own_pixels, fit_processor_pixels, shape_text
from worker.data.processor_pixels import ProcessorPixels
from worker.data.sound import SoundPreprocessing, longest_seconds
from worker.data.waveform import RawWaveform, clip_lengths
from worker.errors import JobFault
from worker.models.folder import LoadedNetwork
from worker.models.transformers_network import TransformersNetwork


def fit_inputs(loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
    """The network's own preprocessing, fitted to the data's samples.

    Raises:
        JobFault: the network cannot read them.
    """
    preprocessing, inputs = loaded.preprocessing, data.splits["train"].inputs
    try:
        match preprocessing:
            case PixelPreprocessing():
                return fit_own_pixels(preprocessing, inputs, data.pixel_range, input_shape=loaded.input_shape)
            case ProcessorPixels():
                fitted = fit_processor_pixels(preprocessing, inputs, data.pixel_range)
                _try(loaded, fitted, data, source=source)
                return fitted
            case SoundPreprocessing(features=RawWaveform()):
                return _fit_waveforms(loaded.network, preprocessing, data)
    except UnfitInputs as error:
        _refuse(f"The teacher {source} does not fit the dataset: {error}.", error, hint=_HINT)
    return preprocessing


def range_warnings(loaded: LoadedNetwork, data: Data, *, source: str) -> tuple[WarningMessage, ...]:
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


_HINT = "Change the dataset or the teacher's preprocessor_config.json as it says, or choose another teacher."


def _fit_waveforms(network: nn.Module, preprocessing: SoundPreprocessing, data: Data) -> SoundPreprocessing:
    """Fits the length of the clips, which a network of waveforms may have any of, to those of all splits.

    A network whose outputs depend on the padding behind a clip reads clips of the length that it was trained on, or each alone.
    """
    clips = [clip for split in data.splits.values() for clip in split.inputs]
    seconds = longest_seconds(clips, most_seconds=data.clip_seconds)
    fitted = replace(preprocessing, num_samples=round(seconds * preprocessing.rate))
    if not isinstance(network, TransformersNetwork) or not _depends_on_padding(network, fitted, clips[0]):
        return fitted
    if preprocessing.is_of_padded:
        return preprocessing
    lengths = {min(round(len(clip.samples) / clip.rate * fitted.rate), fitted.num_samples) for clip in clips}
    network.reads_clips_alone = len(lengths) > 1
    return fitted


def _depends_on_padding(network: TransformersNetwork, preprocessing: SoundPreprocessing, clip: Waveform) -> bool:
    whole = preprocessing.prepare([Waveform(clip.samples[: len(clip.samples) // 2], clip.rate)])
    alone = whole[:, : max(int(clip_lengths(whole)), samples_for(1, network.model.config.to_dict()))]
    with torch.no_grad():
        padded, unpadded = (network(preprocessing(waveforms)) for waveforms in (whole, alone))
    return not torch.allclose(padded, unpadded, rtol=_SLIGHT, atol=_SLIGHT * unpadded.abs().max().item())


_SLIGHT = 1e-4


def _try(loaded: LoadedNetwork, preprocessing: ProcessorPixels, data: Data, *, source: str) -> None:
    """Runs the network on one image: the processor may leave it at a size that the network does not read."""
    inputs = preprocessing(first(data.splits["train"].inputs, 1))
    try:
        with torch.no_grad():
            loaded.network(inputs)
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        message = (
            f"The teacher {source} cannot read images of {shape_text(tuple(inputs.shape[1:]))}, as its image processor makes "
            f"them of the dataset's: {reason}"
        )
        hint = "Have its preprocessor_config.json resize to the size that it was trained on: do_resize and size."
        _refuse(message, error, hint=hint)


def _refuse(message: str, error: Exception, *, hint: str) -> NoReturn:
    raise JobFault("invalid_spec", message, hint=hint) from error
