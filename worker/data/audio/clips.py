"""Preprocessing of sound: clips of one rate and one length, as waveforms or as log-mel spectrograms.

N clips, B batch, T samples of time, F frames, M mel bands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.formats import Waveform
from service.spec.inputs import Features, LogMelFeatures
from service.spec.shapes import InputShape
from worker.data.audio.feature_extractor_file import write_feature_extractor_file
from worker.data.audio.log_mel import RATE, LogMel, clips_at_once, measure_parts
from worker.data.audio.waveform import RawWaveform, fit_length, resample
from worker.data.disk.stored import StoredInputs
from worker.data.preprocessing import Preprocessing, RawInputs


@dataclass(frozen=True)
class SoundPreprocessing(Preprocessing):
    """Resamples clips to the rate of ``features``, cuts or pads them to ``num_samples`` and computes the features."""

    features: LogMel | RawWaveform
    num_samples: int
    is_of_padded: bool = True
    """Whether the network was trained on clips that were padded to ``num_samples``; most others read each clip alone."""

    @property
    def rate(self) -> int:
        """Samples per second."""
        return RATE if isinstance(self.features, LogMel) else self.features.rate

    @property
    def reads_spectrograms(self) -> bool:
        return isinstance(self.features, LogMel)

    def prepare(self, inputs: Sequence[Waveform]) -> Tensor:
        """Resamples, cuts and pads clips to waveforms (N, T), float32."""
        return as_waveforms(inputs, rate=self.rate, num_samples=self.num_samples)

    def __call__(self, stored: Tensor) -> Tensor:
        """Maps waveforms (B, T) to normalised waveforms (B, T), or to spectrograms (B, 1, F, M): images of one channel."""
        features = self.features(stored)
        return features.unsqueeze(1) if self.reads_spectrograms else features

    def input_shape(self, inputs: Sequence[Waveform]) -> tuple[int, ...]:
        """(T,) or (1, F, M)."""
        return tuple(self(torch.zeros(1, self.num_samples)).shape[1:])

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        write_feature_extractor_file(folder, self.features, num_samples=self.num_samples)


def seconds_of(clips: RawInputs) -> NDArray[np.float64]:
    """The lengths (N,) of clips in seconds."""
    if isinstance(clips, StoredInputs):
        return clips.seconds()
    return np.array([len(clip.samples) / clip.rate for clip in clips], float)


def longest_seconds(clips: RawInputs, *, most_seconds: float) -> float:
    """Length of the longest clip in seconds, ``most_seconds`` at most."""
    return min(most_seconds, float(seconds_of(clips).max()))


def as_waveforms(clips: Sequence[Waveform], *, rate: int, num_samples: int) -> Tensor:
    """Resamples clips to ``rate`` and cuts or pads them: (N, ``num_samples``), float32."""
    rows = np.empty((len(clips), num_samples), dtype=np.float32)
    for index, clip in enumerate(clips):
        rows[index] = fit_length(resample(clip.samples, clip.rate, rate), num_samples)
    return torch.from_numpy(rows)


def measure_sound(clips: RawInputs, features: Features, *, most_seconds: float) -> SoundPreprocessing:
    """Measures the preprocessing of clips: the length of the longest, ``most_seconds`` at most, and a spectrogram's mean and std.

    Raises:
        UnusableData: no clip is long enough for one window.
    """
    seconds = longest_seconds(clips, most_seconds=most_seconds)
    if isinstance(features, LogMelFeatures):
        num_samples = round(seconds * RATE)
        return SoundPreprocessing(measure_parts(_parts(clips, num_samples), num_samples, num_mels=features.mels), num_samples)
    return SoundPreprocessing(RawWaveform(features.sample_rate, features.normalise), round(seconds * features.sample_rate))


def _parts(clips: RawInputs, num_samples: int) -> Iterator[Tensor]:
    """Waveforms (n, T), some clips at a time; of very many on disk evenly spaced ones."""
    size = clips_at_once(num_samples)
    pieces = (
        clips.evenly().pieces(size)
        if isinstance(clips, StoredInputs)
        else (clips[start : start + size] for start in range(0, len(clips), size))
    )
    for piece in pieces:
        yield as_waveforms(piece, rate=RATE, num_samples=num_samples)
