"""Log-mel spectrograms equal to those of ``ASTFeatureExtractor``, computed on the device.

Kaldi's recipe: frames of 25 ms every 10 ms that lie wholly inside the clip; subtraction of each frame's mean, pre-emphasis, a
Hann window, an FFT of 512 points; the power in triangular mel filters; the natural logarithm. B batch, T samples of time,
F frames, M mel bands.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from worker.data.audio.waveform import clip_lengths
from worker.data.errors import UnusableData

RATE = 16_000
"""Samples per second. The extractor's window is 400 samples at every rate, but 25 ms at every rate with torchaudio installed: the
two agree at this rate alone."""
WINDOW, HOP = 400, 160
"""Samples: 25 and 10 ms."""
_FFT = 512
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20
_FLOOR = 1.192092955078125e-07
_SAMPLES_AT_ONCE = 2**22
"""Limits memory: the frames of a batch take ten times the memory of its waveforms."""


@dataclass(frozen=True)
class LogMel:
    """Computes ``(log_mel - mean) / (2 * std)``, cut or padded (with a log_mel of 0) to ``num_frames``."""

    num_mels: int
    num_frames: int
    mean: float
    std: float

    @property
    def num_samples(self) -> int:
        """Number of samples of a waveform that ``num_frames`` frames cover."""
        return WINDOW + HOP * (self.num_frames - 1)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Maps waveforms (B, T) at :data:`RATE` to float32 (B, F, M), on the same device."""
        return torch.cat([self._normalised(part) for part in _parts(waveforms[:, : self.num_samples])])

    def _normalised(self, waveforms: Tensor) -> Tensor:
        inside = _log_mel(waveforms, self.num_mels)
        features = inside.new_zeros(len(waveforms), self.num_frames, self.num_mels)
        features[:, : inside.shape[1]] = torch.where(_is_inside(waveforms), inside, 0.0)
        return (features - self.mean) / (2 * self.std)


def measure_log_mel(waveforms: Tensor, *, num_mels: int) -> LogMel:
    """Measures the normalisation that gives frames inside the clips (N, T) mean 0 and standard deviation 1/2 over all mel bands.

    Raises:
        UnusableData: no clip is as long as one window.
    """
    return measure_parts(_parts(waveforms), waveforms.shape[1], num_mels=num_mels)


def measure_parts(parts: Iterable[Tensor], num_samples: int, *, num_mels: int) -> LogMel:
    """The same of clips (n, ``num_samples``) that come some at a time."""
    num_frames, count, mean, squares = _most_frames(num_samples), 0, 0.0, 0.0
    for part in parts:
        values = _log_mel(part, num_mels)[_is_inside(part).squeeze(2)].to(torch.float64)
        if values.numel() == 0:
            continue
        # Means and sums of squares of the parts are combined as in Chan, Golub & LeVeque (1979).
        part_mean = values.mean().item()
        delta, total = part_mean - mean, count + values.numel()
        squares += (values - part_mean).square().sum().item() + delta**2 * count * values.numel() / total
        mean += delta * values.numel() / total
        count = total
    if count == 0:
        raise UnusableData(f"no clip of the training split is {WINDOW} samples long, 25 ms at {RATE} Hz; use longer clips")
    return LogMel(num_mels=num_mels, num_frames=num_frames, mean=mean, std=(squares / count) ** 0.5 or 1.0)


def _parts(waveforms: Tensor) -> Iterator[Tensor]:
    yield from torch.split(waveforms, clips_at_once(waveforms.shape[1]))


def clips_at_once(num_samples: int) -> int:
    """How many clips of that length go through the computation together."""
    return max(1, _SAMPLES_AT_ONCE // max(1, num_samples))


def _most_frames(num_samples: int) -> int:
    return max(0, (num_samples - WINDOW) // HOP + 1)


def _is_inside(waveforms: Tensor) -> Tensor:
    """Marks frames of waveforms (B, T) that lie wholly inside their clips, (B, F, 1) bool."""
    ends = torch.arange(_most_frames(waveforms.shape[1]), device=waveforms.device) * HOP + WINDOW
    return (ends <= clip_lengths(waveforms).unsqueeze(1)).unsqueeze(2)


def _log_mel(waveforms: Tensor, num_mels: int) -> Tensor:
    """Log-mel energies (B, F, M) of all frames of waveforms (B, T), including those that reach into the padding."""
    if waveforms.shape[1] < WINDOW:
        return waveforms.new_zeros(len(waveforms), 0, num_mels, dtype=torch.float32)
    window, filters = _tables(num_mels, waveforms.device)
    # In half precision the weak bands would be lost in the rounding errors of the strong ones.
    with torch.autocast(waveforms.device.type, enabled=False):
        frames = waveforms.to(torch.float32).unfold(1, WINDOW, HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        # The first sample of a frame has no predecessor in it; Kaldi takes the sample itself.
        before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
        spectrum = torch.fft.rfft((frames - _PREEMPHASIS * before) * window, n=_FFT)
        power = torch.view_as_real(spectrum).square().sum(dim=3)
        return (power @ filters).clamp(min=_FLOOR).log()


@lru_cache(maxsize=16)
def _tables(num_mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window (400,) and the mel triangles (257, M)."""
    # Cached on the device: a copy from the host at every step would stall a GPU.
    window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64)
    with warnings.catch_warnings():
        # With the extractor's 128 bands, the lowest filters lie between two bins; one covers none and always gives the floor.
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        filters = mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=num_mels,
            min_frequency=_LOWEST_HZ,
            max_frequency=RATE // 2,
            sampling_rate=RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return window.to(device, torch.float32), torch.from_numpy(filters).to(device, torch.float32)
