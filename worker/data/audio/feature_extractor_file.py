"""``preprocessor_config.json`` of an audio network, as it is written: the feature extractor in front of it.

Invariant: ``AutoFeatureExtractor.from_pretrained`` loads it, with or without torchaudio, and computes the same features as
:class:`LogMel` and :class:`RawWaveform`.
"""

import json
from pathlib import Path
from typing import Any

from worker.data.audio.log_mel import RATE, LogMel
from worker.data.audio.waveform import RawWaveform

FEATURE_EXTRACTOR_FILE = "preprocessor_config.json"
LENGTH_FIELD = "num_samples"
"""A field for the length of the clips, beside those that the library reads."""


def write_feature_extractor_file(folder: Path, features: LogMel | RawWaveform, *, num_samples: int | None = None) -> None:
    """Writes the file; ``num_samples`` is the length of the clips that the network was trained on."""
    document: dict[str, Any]
    match features:
        case LogMel():
            document = {
                "feature_extractor_type": "ASTFeatureExtractor",
                "sampling_rate": RATE,
                "num_mel_bins": features.num_mels,
                "max_length": features.num_frames,
                "do_normalize": True,
                "mean": features.mean,
                "std": features.std,
                "return_attention_mask": False,
            }
        case RawWaveform():
            document = {
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "sampling_rate": features.rate,
                "do_normalize": features.normalise,
                # Without a mask, the extractor also normalises clips of a batch with their padding, which changes their loudness.
                "return_attention_mask": features.masked,
            }
    document |= {"feature_size": 1, "padding_value": 0.0, "padding_side": "right"}
    if num_samples is not None:
        document[LENGTH_FIELD] = num_samples
    (folder / FEATURE_EXTRACTOR_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
