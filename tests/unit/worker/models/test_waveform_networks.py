"""Networks of waveforms: what lies behind a clip's end is masked, and clips too short for them are told before training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from service.spec.architectures import TransformersNetwork
from service.spec.transformers_fit import classifiers
from tests.unit.worker.models.kinds import kind_of
from worker.data.audio.waveform import PADDING
from worker.models import UnfitArchitecture, build_network
from worker.tasks import load_network

CONFIG: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 5, 5],
    "conv_stride": [5, 4, 4],
    "num_conv_pos_embeddings": 2,
    "num_conv_pos_embedding_groups": 2,
}
OWN: dict[str, dict[str, Any]] = {
    "data2vec-audio": {"conv_pos_kernel_size": 3},
    "sew": {"squeeze_factor": 2},
    **{name: {"feat_extract_norm": "layer"} for name in ("hubert", "unispeech-sat", "wav2vec2", "wavlm")},
}
"""By default most norm over the whole of a padded clip."""


def build(model_type: str, *, num_samples: int, **config: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    architecture = TransformersNetwork(
        name="transformers", model_type=model_type, config=CONFIG | OWN.get(model_type, {}) | config
    )
    return build_network(architecture, kind=kind_of(architecture), input_shape=(num_samples,), num_outputs=3)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM hands torch masks of two types
@pytest.mark.parametrize("model_type", [name for name in classifiers("audio-classification") if "spectrogram" not in name])
def test_a_clips_outputs_do_not_depend_on_the_padding_behind_it(model_type: str) -> None:
    network = build(model_type, num_samples=8000).eval()
    clips = torch.randn(2, 8000)
    clips[0, 4000:] = clips[1, 2:] = float(PADDING)
    with torch.no_grad():
        padded, alone = network(clips), network(clips[:1, :4000])
    # Data2VecAudio's position embedding sees its own bias behind the end, and SEW's first layers norm over the whole length.
    torch.testing.assert_close(padded[:1], alone, rtol=0, atol=1e-6 if model_type not in {"data2vec-audio", "sew"} else 1e-3)
    assert padded.isfinite().all()


def test_a_network_from_elsewhere_gets_a_mask_only_where_its_extractor_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**CONFIG, num_labels=3)).eval().save_pretrained(tmp_path)
    clips = torch.randn(1, 800)
    clips[:, 400:] = float(PADDING)
    outputs = {}
    for masked in (False, True):
        Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(tmp_path)
        loaded = load_network(tmp_path)
        with torch.no_grad():
            outputs[masked] = loaded.network(clips)
            mask = (torch.arange(800) < 400).long().unsqueeze(0) if masked else None
            expected = loaded.network.model(clips, attention_mask=mask).logits  # type: ignore[operator]
        torch.testing.assert_close(outputs[masked], expected)
    assert not torch.allclose(outputs[False], outputs[True])


@pytest.mark.parametrize(
    ("num_samples", "config", "words"),
    [
        (60, {}, "/config/conv_stride: one frame takes 110 samples, and clips have 60"),
        (500, {}, "/config/mask_time_length: is 10 frames, more than clips of 500 samples have"),
        (800, {"conv_dim": [8, 8]}, "conv_dim 2, conv_kernel 3, conv_stride 3"),
    ],
    ids=["no frame", "fewer frames than are hidden", "layers"],
)
def test_what_clips_are_too_short_for_is_told(num_samples: int, config: dict[str, Any], words: str) -> None:
    with pytest.raises(UnfitArchitecture, match=words):
        build("wav2vec2", num_samples=num_samples, **config)
    build("wav2vec2", num_samples=500, mask_time_prob=0.0)
