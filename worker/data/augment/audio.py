"""Operations on waveforms (B, T) and on log-mel spectrograms (B, F, M); float32. B batch, T samples, F frames, M mel bands."""

import torch
from torch import Tensor

from service.spec.augment import Gain, Noise, SpecAugment, TimeShift
from worker.data.audio.waveform import PADDING
from worker.data.augment.operation import Draw, Stored, between, normal, up_to


def gain(spec: Gain, waveforms: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Multiplies each waveform by one factor."""
    return waveforms.to(torch.float32) * _amplitude(between(draw(1), spec.min_db, spec.max_db)).to(torch.float32)


def noise(spec: Noise, waveforms: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Adds white noise at a signal-to-noise ratio drawn for each clip. Silence stays silent."""
    waveforms = waveforms.to(torch.float32)
    draws = draw(1 + waveforms.shape[1])
    ratios = _amplitude(between(draws[:, :1], spec.min_snr_db, spec.max_snr_db))
    loudness = waveforms.to(torch.float64).square().mean(dim=1, keepdim=True).sqrt()
    return waveforms + normal(draws[:, 1:]) * (loudness / ratios).to(torch.float32)


def time_shift(spec: TimeShift, waveforms: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Shifts each waveform by a whole number of samples, in either direction; the clip's end moves with it."""
    length = waveforms.shape[1]
    most = int(spec.share * length)
    places = torch.arange(length, device=waveforms.device) - (up_to(draw(1), 2 * most + 1) - most)
    outside = (places < 0) | (places >= length)
    return waveforms.gather(1, places.clamp_(0, length - 1)).masked_fill_(outside, float(PADDING))


def specaugment(spec: SpecAugment, spectrograms: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Masks stretches of frames and bands of frequencies with the spectrogram's own mean (Park et al., 2019)."""
    _, frames, bands = spectrograms.shape
    draws = draw(2 * (spec.time_masks + spec.frequency_masks))
    time_draws, frequency_draws = draws[:, : 2 * spec.time_masks], draws[:, 2 * spec.time_masks :]
    hidden = _stretches(time_draws, frames, spec.time_share)[:, :, None]
    hidden = hidden | _stretches(frequency_draws, bands, spec.frequency_share)[:, None, :]
    mean = spectrograms.mean(dim=(1, 2), keepdim=True, dtype=torch.float64).to(spectrograms.dtype)
    return torch.where(hidden, mean, spectrograms)


def _amplitude(decibels: Tensor) -> Tensor:
    """Converts decibels to a factor of the amplitude, float64."""
    return torch.pow(10.0, decibels.to(torch.float64) / 20)


def _stretches(draws: Tensor, size: int, share: float) -> Tensor:
    """Marks the positions below ``size`` in any of the stretches that the pairs of draws (B, 2 · count) give; (B, size) bool."""
    lengths = up_to(draws[:, 0::2], int(share * size) + 1)
    starts = up_to(draws[:, 1::2], size + 1 - lengths)
    places = torch.arange(size, device=draws.device)
    inside = (places >= starts[:, :, None]) & (places < (starts + lengths)[:, :, None])
    return inside.any(dim=1)
