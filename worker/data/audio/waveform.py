"""Waveforms: resampled and padded on the host, normalised on the device for a network that reads raw waveforms.

Invariant: the samples after a clip's end are :data:`PADDING`, so that a batch (B, T) determines the lengths of its clips.
B batch, T samples of time.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PADDING = np.float32(-0.0)
"""Equal to 0.0 in every computation, but distinct from the 0.0 of a recording, which may end in digital silence: the features of
a clip depend on where it ends, and must equal those that an extractor computes without padding."""
_LARGEST_FACTOR = 10_000
_FILTER_REACH = 10
"""Zero crossings of the resampling filter on either side, SciPy's default."""


@dataclass(frozen=True)
class RawWaveform:
    """Normalises raw waveforms like ``Wav2Vec2FeatureExtractor``, which pads after it normalises."""

    rate: int
    """Samples per second."""
    normalise: bool = True
    """Whether each clip is normalised to zero mean and unit variance."""
    masked: bool = True
    """Whether the network reads an attention mask of the clips; an extractor's ``return_attention_mask``."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Maps waveforms (B, T) to float32 of the same shape, on the same device; the padding stays."""
        waveforms = waveforms.to(torch.float32)
        if not self.normalise:
            return waveforms
        lengths = clip_lengths(waveforms).clamp(min=1).unsqueeze(1)
        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths
        mean = waveforms.sum(dim=1, keepdim=True) / lengths
        centred = torch.where(inside, waveforms - mean, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / lengths
        return torch.where(inside, centred * torch.rsqrt(variance + _VARIANCE_FLOOR), waveforms)


_VARIANCE_FLOOR = 1e-7


def clip_lengths(waveforms: Tensor) -> Tensor:
    """Number of samples before the padding of each waveform of (B, T), (B,) int64."""
    is_padding = (waveforms == 0) & torch.signbit(waveforms)
    positions = torch.arange(1, waveforms.shape[1] + 1, device=waveforms.device)
    return torch.where(is_padding, 0, positions).amax(dim=1)


def fit_length(samples: NDArray[np.float32], num_samples: int) -> NDArray[np.float32]:
    """Fits samples (T,) to (num_samples,): cut at the end, like feature extractors, or padded there with :data:`PADDING`."""
    fitted = np.full(num_samples, PADDING, dtype=np.float32)
    clip = samples[:num_samples]
    # Adding 0.0 turns a recording's own -0.0 into 0.0.
    np.add(clip, np.float32(0.0), out=fitted[: len(clip)])
    return fitted


def resample(samples: NDArray[np.float32], rate: int, target_rate: int) -> NDArray[np.float32]:
    """Resamples (T,) from ``rate`` to ``target_rate`` through a low-pass filter against aliasing."""
    if rate == target_rate:
        return samples
    # scipy.signal takes most of a second to import, which jobs on other data need not wait for.
    from scipy.signal import resample_poly

    # For rates without a common divisor the filter would have millions of taps. With this limit the ratio is off by less than
    # 1 in 10,000.
    low, high = sorted((rate, target_rate))
    ratio = Fraction(low, high).limit_denominator(_LARGEST_FACTOR)
    up, down = (ratio.numerator, ratio.denominator) if target_rate < rate else (ratio.denominator, ratio.numerator)
    resampled: NDArray[np.float32] = resample_poly(samples, up, down, window=_low_pass(max(up, down)))
    return resampled.astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _low_pass(factor: int) -> NDArray[np.float32]:
    # Cached: its design takes longer than filtering a short clip.
    from scipy.signal import firwin

    taps: NDArray[np.float64] = firwin(2 * _FILTER_REACH * factor + 1, 1 / factor, window=("kaiser", 5.0))
    return taps.astype(np.float32)
