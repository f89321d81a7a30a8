"""``preprocessor_config.json`` of an audio network: the feature extractor in front of it.

Invariant: ``AutoFeatureExtractor.from_pretrained`` loads the file, with or without torchaudio, and computes the same features as
:class:`LogMel` and :class:`RawWaveform`, which compute them on the device that trains. A file from elsewhere is read only if the
library's extractor, run on a probe, computes the same.
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, Wav2Vec2FeatureExtractor

from worker.data.audio.clips import SoundPreprocessing
from worker.data.audio.feature_extractor_file import FEATURE_EXTRACTOR_FILE, LENGTH_FIELD
from worker.data.audio.log_mel import RATE, WINDOW, LogMel
from worker.data.audio.waveform import RawWaveform
from worker.models.errors import UnreadableNetwork

_USUAL_SECONDS = 10


def is_feature_extractor(folder: Path) -> bool:
    """Whether the file is that of an audio network. Raises UnreadableNetwork if it is missing or broken."""
    return "feature_extractor_type" in _document(folder)


def read_sound_preprocessing(folder: Path, input_shape: tuple[int, ...]) -> SoundPreprocessing:
    """Reads the file beside a network that reads inputs of that shape; an empty one is not known.

    Raises:
        UnreadableNetwork: it is missing or broken, or not of such inputs.
    """
    features = read_feature_extractor_config(folder)
    if isinstance(features, LogMel):
        if input_shape and input_shape != (1, features.num_frames, features.num_mels):
            raise UnreadableNetwork(
                f"{FEATURE_EXTRACTOR_FILE} makes spectrograms of {features.num_frames} by {features.num_mels}, and the network "
                f"reads {' by '.join(map(str, input_shape[1:]))}: save both of one network"
            )
        return SoundPreprocessing(features, features.num_samples)
    length = _document(folder).get(LENGTH_FIELD)
    if isinstance(length, int) and length > 0:
        return SoundPreprocessing(features, length)
    return SoundPreprocessing(features, _USUAL_SECONDS * features.rate, is_of_padded=False)


def _document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / FEATURE_EXTRACTOR_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableNetwork(f"{FEATURE_EXTRACTOR_FILE} cannot be read: {error}") from error
    return document if isinstance(document, dict) else {}


def read_feature_extractor_config(folder: Path) -> LogMel | RawWaveform:
    """Reads the file of any folder, with the defaults of its extractor's class.

    Raises:
        UnreadableNetwork: the file is missing or broken, or its extractor computes other features.
    """
    if not (folder / FEATURE_EXTRACTOR_FILE).is_file():
        raise UnreadableNetwork(
            f"{FEATURE_EXTRACTOR_FILE} is missing: save the feature extractor beside the network, with save_pretrained(folder)"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
            extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        preprocessing = _preprocessing(extractor)
        if not _is_same(preprocessing, extractor):
            raise ValueError(
                f"its {type(extractor).__name__} computes other features than those which are computed here; "
                "save it with the settings that its class has"
            )
        return preprocessing
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, MemoryError) as error:
        raise UnreadableNetwork(f"{FEATURE_EXTRACTOR_FILE} cannot be read: {type(error).__name__}: {error}") from error


def _preprocessing(extractor: Any) -> LogMel | RawWaveform:
    rate = _positive(extractor, "sampling_rate")
    # Classes derived from one of these compute features of their own.
    if type(extractor) is ASTFeatureExtractor:
        if rate != RATE:
            raise ValueError(f"sampling_rate is {rate}; log-mel features are made at {RATE} alone")
        # The extractor divides by twice the std.
        mean, std = (float(extractor.mean), float(extractor.std)) if extractor.do_normalize else (0.0, 0.5)
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"mean and std are {mean} and {std}; they must be finite, and std above 0")
        num_mels, num_frames = _positive(extractor, "num_mel_bins"), _positive(extractor, "max_length")
        return LogMel(num_mels=num_mels, num_frames=num_frames, mean=mean, std=std)
    if type(extractor) is Wav2Vec2FeatureExtractor:
        return RawWaveform(rate, normalise=bool(extractor.do_normalize), masked=bool(extractor.return_attention_mask))
    raise UnreadableNetwork(
        f"{FEATURE_EXTRACTOR_FILE} is of {type(extractor).__name__}; networks are run behind ASTFeatureExtractor, log-mel "
        "spectrograms, and Wav2Vec2FeatureExtractor, the waveform itself"
    )


def _is_same(preprocessing: LogMel | RawWaveform, extractor: Any) -> bool:
    """Whether the extractor computes of two clips of noise, a loud and a soft one, what is computed here on any device."""
    length = preprocessing.num_samples if isinstance(preprocessing, LogMel) else preprocessing.rate
    for samples, loudness in ((min(length, _PROBE), 0.5), (min(length, _PROBE) // 2, 0.01)):
        clip = np.random.default_rng(0).normal(loudness / 5, loudness, max(samples, WINDOW)).astype(np.float32)
        theirs = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_values"]
        ours = preprocessing(torch.from_numpy(clip).unsqueeze(0))
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
            return False
    return True


_PROBE = 8_000
"""Samples, at most."""


def _positive(extractor: Any, name: str) -> int:
    number = getattr(extractor, name)
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} is {number!r}; it must be a number above 0")
    return number
