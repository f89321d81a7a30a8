"""Waveforms: their length, their rate, and that they are normalised as transformers normalises them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import Wav2Vec2FeatureExtractor

from worker.data.audio.waveform import RawWaveform, clip_lengths, fit_length, resample


def noise(num_samples: int, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.05, 0.1, num_samples).astype(np.float32)


def sine(hertz: float, *, rate: int, seconds: float) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


# ---------------------------------------------------------------- length


def test_a_short_clip_is_padded_with_silence_and_a_long_one_cut_at_its_end() -> None:
    clip = noise(10)
    np.testing.assert_array_equal(fit_length(clip, 12), [*clip, 0, 0])
    np.testing.assert_array_equal(fit_length(clip, 7), clip[:7])


def test_padding_can_be_told_from_silence_of_the_clip_itself() -> None:
    silent_end = np.array([0.5, 0.0, -0.0, 0.0], np.float32)
    all_silent = np.zeros(3, np.float32)
    batch = torch.from_numpy(np.stack([fit_length(clip, 6) for clip in (silent_end, all_silent, noise(6), noise(9))]))
    assert clip_lengths(batch).tolist() == [4, 3, 6, 6]
    assert clip_lengths(batch * 0.5).tolist() == [4, 3, 6, 6]


# ---------------------------------------------------------------- rate


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_a_tone_stays_the_same_tone_at_another_rate(rate: int) -> None:
    resampled = resample(sine(440, rate=rate, seconds=0.25), rate, 16_000)
    assert resampled.dtype == np.float32
    assert len(resampled) == 4000
    np.testing.assert_allclose(resampled[200:-200], sine(440, rate=16_000, seconds=0.25)[200:-200], atol=3e-3)


def test_what_the_new_rate_cannot_hold_is_filtered_out_instead_of_folded_back() -> None:
    assert np.abs(resample(sine(15_000, rate=48_000, seconds=0.25), 48_000, 16_000)[200:-200]).max() < 1e-3


def test_rates_without_a_common_divisor_are_met_closely() -> None:
    resampled = resample(sine(440, rate=383_987, seconds=0.25), 383_987, 16_000)
    assert abs(len(resampled) - 4000) <= 1
    np.testing.assert_allclose(resampled[200:3800], sine(440, rate=16_000, seconds=0.25)[200:3800], atol=0.04)


def test_the_same_rate_leaves_the_samples_as_they_are() -> None:
    clip = noise(100)
    assert resample(clip, 16_000, 16_000) is clip


# ---------------------------------------------------------------- normalisation


def test_clips_are_normalised_as_wav2vec2_normalises_them_each_by_its_own_samples() -> None:
    clips = [
        noise(500),
        noise(300, seed=1),
        np.r_[noise(200, seed=2), np.zeros(50, np.float32)],
        np.zeros(80, np.float32),
        noise(900),
    ]
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True)
    expected = extractor(clips, sampling_rate=16_000, padding="max_length", max_length=600, truncation=True, return_tensors="pt")
    batch = torch.from_numpy(np.stack([fit_length(clip, 600) for clip in clips]))
    normalised = RawWaveform(rate=16_000)(batch)
    torch.testing.assert_close(normalised, expected["input_values"], atol=2e-6, rtol=0)
    assert clip_lengths(normalised).tolist() == expected["attention_mask"].sum(dim=1).tolist() == [500, 300, 250, 80, 600]
    alone = extractor(clips[1], sampling_rate=16_000, return_tensors="pt")["input_values"][0]
    torch.testing.assert_close(normalised[1, :300], alone, atol=2e-6, rtol=0)


def test_without_normalisation_the_waveform_is_the_input() -> None:
    batch = torch.from_numpy(noise(40).reshape(2, 20))
    assert torch.equal(RawWaveform(rate=8_000, normalise=False)(batch), batch)
