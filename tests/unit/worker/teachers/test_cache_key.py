"""The key of a teacher's outputs: each thing that they depend on changes it, and nothing else does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.formats import Waveform
from service.spec.architectures import SmallCnn, TransformersNetwork
from service.spec.inputs import LogMelFeatures, TokenizerSpec, WaveformFeatures
from tests.unit.worker.models.kinds import kind_of
from worker.data import PixelPreprocessing, Preprocessing
from worker.data.audio.clips import measure_sound
from worker.data.text.texts import TextPreprocessing, train_text_preprocessing
from worker.models import build_network, save_network
from worker.targets import Targets
from worker.tasks import load_network
from worker.teachers import cache_key as cache_key_module
from worker.teachers.cache_key import cache_key, inputs_digest, key_of, preprocessing_digest

CPU = torch.device("cpu")
IMAGES = torch.arange(2 * 64, dtype=torch.uint8).view(2, 1, 8, 8)
PIXELS = PixelPreprocessing(mean=(0.5,), std=(0.5,), rescale_factor=1 / 255)
TEXTS = ["one and two", "three and four", "five, six", "seven or eight"]


def network(*, seed: int = 0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(SmallCnn(name="small-cnn", width=width), input_shape=(1, 8, 8), num_outputs=3).eval()


def bert(**config: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "patch_size": 4}
    architecture = TransformersNetwork(name="transformers", model_type="vit", config=sizes | config)
    return build_network(architecture, kind=kind_of(architecture), input_shape=(1, 8, 8), num_outputs=3)


def key(of: nn.Module | None = None, **changes: Any) -> str:
    asked: dict[str, Any] = {"inputs": IMAGES, "preprocessing": PIXELS, "layers": {}, "device": CPU} | changes
    inputs, preprocessing = asked.pop("inputs"), asked.pop("preprocessing")
    return key_of(cache_key(network() if of is None else of, inputs, preprocessing, **asked))


def moved(of: nn.Module) -> nn.Module:
    """One bit of one weight is another."""
    with torch.no_grad():
        next(of.parameters()).view(-1)[0].mul_(1 + 2**-20)
    return of


def counted(of: nn.Module) -> nn.Module:
    """The statistics of a batch norm are another."""
    of.train()
    of(torch.randn(2, 1, 8, 8))
    return of.eval()


@pytest.mark.parametrize(
    "other",
    [
        lambda: key(moved(network())),
        lambda: key(counted(network())),
        lambda: key(network(width=8)),
        lambda: key(inputs=IMAGES.flip(0)),
        lambda: key(inputs=IMAGES.float()),
        lambda: key(inputs=IMAGES.transpose(2, 3)),
        lambda: key(preprocessing=replace(PIXELS, mean=(0.25,))),
        lambda: key(layers={"features": torch.Size((4, 2, 2))}),
        lambda: key(device=torch.device("cuda")),
    ],
    ids=["weights", "statistics", "architecture", "order", "type", "pixels", "preprocessing", "outputs", "device"],
)
def test_each_ingredient_changes_the_key(other: Any) -> None:
    assert key() == key()
    assert other() != key()


def test_what_decides_on_the_last_bits_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert key() != before
    monkeypatch.undo()
    monkeypatch.setattr(cache_key_module, "FORMAT", 0)
    assert key() != before


def test_a_config_that_changes_no_weight_changes_the_key() -> None:
    assert key(bert(hidden_act="gelu")) == key(bert(hidden_act="gelu")) != key(bert(layer_norm_eps=1e-3))


def test_a_network_from_a_folder_is_asked_the_same_wherever_the_folder_is(tmp_path: Path) -> None:
    for name in ("here", "there"):
        save_network(bert(), tmp_path / name, targets=Targets.of_classes(["a", "b", "c"]), preprocessing=PIXELS)
    assert key(load_network(tmp_path / "here").network) == key(load_network(tmp_path / "there").network)


def test_texts_and_clips_are_told_apart() -> None:
    digests = [inputs_digest(texts) for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab\nc"])]
    assert len(set(digests)) == 4
    clip = Waveform(np.arange(4, dtype=np.float32), 16_000)
    clips = [[clip], [replace(clip, rate=8_000)], [replace(clip, samples=clip.samples + 1)], [clip, clip]]
    assert len({inputs_digest(each) for each in clips}) == 4


def test_every_preprocessing_is_told_apart_by_what_it_knows() -> None:
    spec = TokenizerSpec(train="wordpiece", vocab_size=300, max_length=16)
    texts = train_text_preprocessing(TEXTS, spec)
    same = train_text_preprocessing(TEXTS, spec)
    same.prepare(TEXTS)  # an encoding leaves its truncation in the tokenizer
    assert preprocessing_digest(texts) == preprocessing_digest(same)
    generator = np.random.default_rng(0)
    clips = [Waveform(generator.standard_normal(4000).astype(np.float32), 16_000)]
    with_types = train_text_preprocessing(TEXTS, spec)
    with_types.tokenizer.model_input_names = [*texts.tokenizer.model_input_names, "token_type_ids"]
    assert with_types.parameters == texts.parameters, "the tokens are the same, for networks that are compared"
    others: list[Preprocessing] = [
        PIXELS,
        texts,
        with_types,
        replace(texts, has_limit=False),
        TextPreprocessing(texts.tokenizer, 8),
        train_text_preprocessing(TEXTS[:2], spec),
        measure_sound(clips, LogMelFeatures(mels=16), most_seconds=1),
        measure_sound(clips, LogMelFeatures(mels=8), most_seconds=1),
        measure_sound(clips, WaveformFeatures(name="waveform"), most_seconds=1),
        measure_sound(clips, WaveformFeatures(name="waveform", normalise=False), most_seconds=1),
    ]
    assert len({preprocessing_digest(each) for each in others}) == len(others)
