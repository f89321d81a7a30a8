"""Fits a classifier of waveforms that was trained before to the length of a job's clips."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from service.formats import Waveform
from service.spec.transformers_fit import samples_for
from worker.data import Data
from worker.data.audio.clips import SoundPreprocessing, seconds_of
from worker.data.audio.waveform import clip_lengths
from worker.models.transformers_network import TransformersNetwork


def fit_waveforms(network: nn.Module, preprocessing: SoundPreprocessing, data: Data) -> SoundPreprocessing:
    """Fits the length of the clips, which a network of waveforms may have any of, to those of all splits.

    A network whose outputs depend on the padding behind a clip reads clips of the length that it was trained on, or each alone.
    """
    seconds = np.concatenate([seconds_of(split.inputs) for split in data.splits.values()])
    longest = min(data.clip_seconds, float(seconds.max()))
    fitted = replace(preprocessing, num_samples=round(longest * preprocessing.rate))
    if not isinstance(network, TransformersNetwork) or not _depends_on_padding(network, fitted, data.splits["train"].inputs[0]):
        return fitted
    if preprocessing.is_of_padded:
        return preprocessing
    lengths = np.minimum((seconds * fitted.rate).round(), fitted.num_samples)
    network.reads_clips_alone = len(np.unique(lengths)) > 1
    return fitted


def _depends_on_padding(network: TransformersNetwork, preprocessing: SoundPreprocessing, clip: Waveform) -> bool:
    whole = preprocessing.prepare([Waveform(clip.samples[: len(clip.samples) // 2], clip.rate)])
    alone = whole[:, : max(int(clip_lengths(whole)), samples_for(1, network.model.config.to_dict()))]
    with torch.no_grad():
        padded, unpadded = (network(preprocessing(waveforms)) for waveforms in (whole, alone))
    return not torch.allclose(padded, unpadded, rtol=_SLIGHT, atol=_SLIGHT * unpadded.abs().max().item())


_SLIGHT = 1e-4
