"""The file beside a network that listens: transformers loads it and makes the features that the network is trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from worker.data.audio.feature_extractor_file import write_feature_extractor_file
from worker.data.audio.log_mel import RATE, LogMel, measure_log_mel
from worker.data.audio.waveform import RawWaveform, fit_length
from worker.models import UnreadableNetwork
from worker.models.feature_extractor_config import read_feature_extractor_config

CLIPS = [np.random.default_rng(seed).normal(0, 0.1, 3_000 + 900 * seed).astype(np.float32) for seed in range(4)]
WAVEFORMS = torch.from_numpy(np.stack([fit_length(clip, 5_000) for clip in CLIPS]))


def test_log_mel_features_are_those_of_the_extractor_that_transformers_loads(tmp_path: Path) -> None:
    log_mel = measure_log_mel(WAVEFORMS, num_mels=40)
    write_feature_extractor_file(tmp_path, log_mel)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is ASTFeatureExtractor
    torch.testing.assert_close(
        log_mel(WAVEFORMS), extractor(CLIPS, sampling_rate=RATE, return_tensors="pt")["input_values"], atol=2e-4, rtol=0
    )
    assert read_feature_extractor_config(tmp_path) == log_mel


@pytest.mark.parametrize("normalise", [True, False])
def test_waveforms_are_those_of_the_extractor_that_transformers_loads(tmp_path: Path, normalise: bool) -> None:
    raw = RawWaveform(rate=8_000, normalise=normalise)
    write_feature_extractor_file(tmp_path, raw)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is Wav2Vec2FeatureExtractor
    padded = extractor(CLIPS, sampling_rate=8_000, padding="max_length", max_length=5_000, truncation=True, return_tensors="pt")
    torch.testing.assert_close(raw(WAVEFORMS), padded["input_values"], atol=2e-6, rtol=0)
    assert read_feature_extractor_config(tmp_path) == raw


def test_an_extractor_that_transformers_saved_is_read_with_its_classes_defaults(tmp_path: Path) -> None:
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    assert read_feature_extractor_config(tmp_path) == RawWaveform(rate=16_000, masked=False)
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "ASTFeatureExtractor", "do_normalize": false}')
    log_mel = read_feature_extractor_config(tmp_path)
    assert log_mel == LogMel(num_mels=128, num_frames=1024, mean=0.0, std=0.5)
    assert log_mel(WAVEFORMS[:1]).shape == (1, 1024, 128)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 8_000}, "at 16000 alone"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 40, "std": 0}, "std above 0"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 40, "mean": float("nan")}, "finite"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 40, "max_length": "9"}, "max_length is '9'"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 0}, "sampling_rate is 0"),
        ({"feature_extractor_type": "Nothing"}, "cannot be read"),
        ({"image_processor_type": "ViTImageProcessor"}, "cannot be read"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_named(tmp_path: Path, document: dict[str, object], words: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    with pytest.raises(UnreadableNetwork, match=words):
        read_feature_extractor_config(tmp_path)


def test_an_extractor_of_other_features_is_refused_by_its_name(tmp_path: Path) -> None:
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(UnreadableNetwork, match="of WhisperFeatureExtractor; networks are run behind ASTFeatureExtractor"):
        read_feature_extractor_config(tmp_path)


def test_a_missing_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnreadableNetwork, match="save_pretrained"):
        read_feature_extractor_config(tmp_path)
