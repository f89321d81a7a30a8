"""Sound as a network reads it: clips of one rate and one length, as waveforms or as log-mel spectrograms.

N clips, B batch, T samples of time, F frames, M mel bands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from service.formats import Waveform
from service.spec.inputs import Features, LogMelFeatures
from worker.data.log_mel import RATE, LogMel, measure_log_mel
from worker.data.waveform import RawWaveform, fit_length, resample


@dataclass(frozen=True)
class SoundPreprocessing:
    """Clips at the rate of ``features``, cut or padded to ``num_samples``."""

    on_host: ClassVar[bool] = False
    keeps_size: ClassVar[bool] = True

    features: LogMel | RawWaveform
    num_samples: int

    @property
    def rate(self) -> int:
        """Samples a second."""
        return RATE if isinstance(self.features, LogMel) else self.features.rate

    def prepare(self, inputs: Sequence[Waveform]) -> Tensor:
        """Waveforms (N, T), float32."""
        return as_waveforms(inputs, rate=self.rate, num_samples=self.num_samples)

    def __call__(self, stored: Tensor) -> Tensor:
        """Waveforms (B, T) as they are read, or spectrograms (B, 1, F, M): images of one channel."""
        features = self.features(stored)
        return features.unsqueeze(1) if isinstance(self.features, LogMel) else features

    def input_shape(self, inputs: Sequence[Waveform]) -> tuple[int, ...]:
        """(T,) or (1, F, M)."""
        return tuple(self(torch.zeros(1, self.num_samples)).shape[1:])


def longest_seconds(clips: Sequence[Waveform], *, most_seconds: float) -> float:
    """Of the longest clip, and not more than that."""
    return min(most_seconds, max(len(clip.samples) / clip.rate for clip in clips))


def as_waveforms(clips: Sequence[Waveform], *, rate: int, num_samples: int) -> Tensor:
    """(N, ``num_samples``), float32, at ``rate``."""
    rows = np.empty((len(clips), num_samples), dtype=np.float32)
    for index, clip in enumerate(clips):
        rows[index] = fit_length(resample(clip.samples, clip.rate, rate), num_samples)
    return torch.from_numpy(rows)


def measure_sound(clips: Sequence[Waveform], features: Features, *, most_seconds: float) -> SoundPreprocessing:
    """For clips as long as the longest of these, ``most_seconds`` at most; a spectrogram's mean and deviation are theirs.

    Raises:
        UnusableData: no clip is long enough for one window.
    """
    seconds = longest_seconds(clips, most_seconds=most_seconds)
    if isinstance(features, LogMelFeatures):
        num_samples = round(seconds * RATE)
        waveforms = as_waveforms(clips, rate=RATE, num_samples=num_samples)
        return SoundPreprocessing(measure_log_mel(waveforms, num_mels=features.mels), num_samples)
    return SoundPreprocessing(RawWaveform(features.sample_rate, features.normalise), round(seconds * features.sample_rate))
