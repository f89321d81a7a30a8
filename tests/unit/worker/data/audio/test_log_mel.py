"""Log-mel spectrograms: those of transformers' extractor, whatever the clips' lengths."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import ASTFeatureExtractor

from worker.data.audio.log_mel import HOP, RATE, WINDOW, LogMel, measure_log_mel
from worker.data.audio.waveform import fit_length
from worker.data.errors import UnusableData

SECOND = RATE


def clip(num_samples: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Noise whose loudness comes and goes, and a tone."""
    times = np.arange(num_samples)
    loudness = 0.1 * np.abs(np.sin(times / 3000))
    samples = loudness * np.random.default_rng(seed).normal(size=num_samples) + 0.2 * np.sin(times / 7)
    return samples.astype(np.float32)


def batch(*clips: NDArray[np.float32], num_samples: int) -> Tensor:
    return torch.from_numpy(np.stack([fit_length(each, num_samples) for each in clips]))


SILENT_END = clip(9_000)
SILENT_END[6_000:] = 0
CLIPS = [clip(SECOND), clip(7_777, seed=1), SILENT_END, clip(WINDOW), clip(WINDOW - 1), clip(SECOND + 5_000, seed=2)]


@pytest.mark.parametrize("num_mels", [16, 64, 126])
def test_features_are_those_of_the_extractor_for_clips_shorter_and_longer_than_the_batch(num_mels: int) -> None:
    waveforms = batch(*CLIPS, num_samples=SECOND)
    log_mel = measure_log_mel(waveforms, num_mels=num_mels)
    extractor = ASTFeatureExtractor(
        num_mel_bins=num_mels, max_length=log_mel.num_frames, mean=log_mel.mean, std=log_mel.std, sampling_rate=RATE
    )
    expected = torch.cat([extractor(each, sampling_rate=RATE, return_tensors="pt")["input_values"] for each in CLIPS])
    features = log_mel(waveforms)
    assert (features.shape, features.dtype) == ((len(CLIPS), 98, num_mels), torch.float32)
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=0)


def test_a_waveform_of_another_length_gives_the_same_frames() -> None:
    log_mel = LogMel(num_mels=20, num_frames=40, mean=-3.0, std=4.0)
    assert log_mel.num_samples == WINDOW + 39 * HOP
    short, long = (log_mel(batch(clip(5_000), num_samples=length)) for length in (5_000, SECOND))
    assert short.shape == (1, 40, 20)
    torch.testing.assert_close(short, long)


def test_a_large_batch_gives_what_its_clips_give_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = batch(*(clip(2_000, seed=seed) for seed in range(7)), num_samples=2_000)
    log_mel = measure_log_mel(waveforms, num_mels=20)
    whole = log_mel(waveforms)
    monkeypatch.setattr("worker.data.audio.log_mel._SAMPLES_AT_ONCE", 4_000)
    torch.testing.assert_close(log_mel(waveforms), whole)
    in_parts = measure_log_mel(waveforms, num_mels=20)
    assert (in_parts.mean, in_parts.std) == pytest.approx((log_mel.mean, log_mel.std))


def test_the_map_is_measured_on_the_frames_inside_the_clips() -> None:
    clips = [clip(4_000, seed=seed) for seed in range(5)]
    tight, loose = (measure_log_mel(batch(*clips, num_samples=length), num_mels=20) for length in (4_000, SECOND))
    assert (tight.mean, tight.std) == pytest.approx((loose.mean, loose.std))
    assert (tight.num_frames, loose.num_frames) == (23, 98)
    features = tight(batch(*clips, num_samples=4_000))
    assert features.mean().item() == pytest.approx(0, abs=1e-4)
    assert features.std(correction=0).item() == pytest.approx(0.5, abs=1e-4)


def test_silence_alone_is_only_centred() -> None:
    silence = batch(np.zeros(1_000, np.float32), num_samples=1_000)
    log_mel = measure_log_mel(silence, num_mels=20)
    torch.testing.assert_close(log_mel(silence), torch.zeros(1, 4, 20), atol=1e-5, rtol=0)


def test_clips_shorter_than_a_window_cannot_be_measured() -> None:
    with pytest.raises(UnusableData, match="400 samples long"):
        measure_log_mel(batch(clip(300), num_samples=300), num_mels=20)


def test_half_precision_around_it_changes_nothing() -> None:
    waveforms = batch(*CLIPS, num_samples=SECOND)
    log_mel = LogMel(num_mels=20, num_frames=98, mean=-3.0, std=4.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(waveforms), log_mel(waveforms))
        inside = log_mel(waveforms)
    assert torch.equal(inside, log_mel(waveforms))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_the_same_features() -> None:
    waveforms = batch(*CLIPS, num_samples=SECOND)
    log_mel = measure_log_mel(waveforms, num_mels=64)
    torch.testing.assert_close(log_mel(waveforms.cuda()).cpu(), log_mel(waveforms), atol=1e-3, rtol=0)
