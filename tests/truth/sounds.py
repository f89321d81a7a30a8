"""Audio classifiers behind their own feature extractors, each clip read alone, as the library's pipeline reads it."""

import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
)

from service.spec.architectures import TransformersNetwork
from service.spec.tasks import TaskName
from service.spec.transformers_fit import classifiers
from tests.truth.service_path import compared, service_outputs
from tests.truth.subject import Outcome, Settings, Subject
from tests.unit.worker.models.test_waveform_networks import CONFIG, OWN
from worker.models import build_network
from worker.tasks import TASKS

TASK: TaskName = "audio-classification"
AST = "audio-spectrogram-transformer"
CLASSES = ["0", "1", "2"]
SECONDS = 0.3
FRAMES, MELS = 32, 24
AST_CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "patch_size": 8,
    "frequency_stride": 8,
    "time_stride": 8,
}
SPLITS = ("train", "validation", "test")

CLIPS: dict[str, dict[str, Any]] = {
    "of several lengths": {"seconds": (0.3, 0.17, 0.25)},
    "of one length": {},
    "short": {"seconds": (0.03, 0.04, 0.03)},
    "long": {"seconds": (1.0, 1.1, 0.9)},
    "stereo": {"channels": 2},
    "at 8000 Hz": {"rate": 8_000},
    "at 44100 Hz": {"rate": 44_100},
    "FLAC": {"kind": "FLAC", "seconds": (0.3, 0.2, 0.25)},
    "quiet": {"loudness": 0.003},
}
LABELS = ["in order", "reversed"]
NORMALISED: dict[str, dict[str, Any]] = {"by its class": {}, "on": {"do_normalize": True}, "off": {"do_normalize": False}}
OF_WAVEFORMS: dict[str, dict[str, dict[str, Any]]] = {
    "do_normalize": NORMALISED,
    "return_attention_mask": {"off": {"return_attention_mask": False}, "on": {"return_attention_mask": True}},
    "sampling_rate": {"16000": {}, "8000": {"sampling_rate": 8_000}},
    "padding": {"0": {}, "1": {"padding_value": 1.0}, "left": {"padding_side": "left"}},
}
OF_SPECTROGRAMS: dict[str, dict[str, dict[str, Any]]] = {
    "do_normalize": NORMALISED,
    "mean and std": {"of its class": {}, "others": {"mean": -7.5, "std": 2.5}},
    "sampling_rate": {"16000": {}, "8000": {"sampling_rate": 8_000}},
    "sizes": {"the network's": {}, "more bands": {"num_mel_bins": 2 * MELS}, "longer": {"max_length": 2 * FRAMES}},
    "return_attention_mask": {"off": {"return_attention_mask": False}, "on": {"return_attention_mask": True}},
}
NORMS = ["layer", "group"]
"""Of the first layers of a network of waveforms; group norm goes over the whole of a padded clip."""


def run(model_type: str, settings: Settings, folder: Path) -> Outcome:
    """Compares one network."""
    network, clips = folder / "network", _draw(**CLIPS[settings["clips"]])
    _save(model_type, settings, network)
    data = folder / "data.zip"
    with zipfile.ZipFile(data, "w") as archive:
        for index, clip in enumerate(clips):
            for split in SPLITS:
                archive.writestr(f"{split}/{index}/clip.{'flac' if settings['clips'] == 'FLAC' else 'wav'}", clip)
    base = _network(model_type, settings.get("norm", ""))
    return compared(lambda: service_outputs(TASK, network, data), lambda: _library_outputs(base, network, clips), CLASSES)


def _save(model_type: str, settings: Settings, folder: Path) -> None:
    shutil.copytree(_network(model_type, settings.get("norm", "")), folder)
    config = json.loads((folder / "config.json").read_text())
    names = CLASSES if settings["labels"] == "in order" else CLASSES[::-1]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    switches = OF_SPECTROGRAMS if model_type == AST else OF_WAVEFORMS
    extractor: dict[str, Any] = {"num_mel_bins": MELS, "max_length": FRAMES} if model_type == AST else {}
    for switch, values in switches.items():
        extractor |= values[settings[switch]]
    (ASTFeatureExtractor if model_type == AST else Wav2Vec2FeatureExtractor)(**extractor).save_pretrained(folder)


@cache
def _network(model_type: str, norm: str) -> Path:
    folder = Path(mkdtemp())
    torch.manual_seed(0)
    shape = (1, FRAMES, MELS) if model_type == AST else (round(SECONDS * 16_000),)
    config = AST_CONFIG if model_type == AST else CONFIG | OWN.get(model_type, {})
    if "feat_extract_norm" in config:
        config = config | {"feat_extract_norm": norm}
    architecture = TransformersNetwork(name="transformers", model_type=model_type, config=config)
    network: Any = build_network(
        architecture, kind=TASKS["audio-classification"].network, input_shape=shape, num_outputs=len(CLASSES)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
    network.model.save_pretrained(folder)
    return folder


def _draw(
    *,
    seconds: Sequence[float] = (SECONDS,) * 3,
    channels: int = 1,
    rate: int = 16_000,
    kind: str = "WAV",
    loudness: float = 0.3,
) -> list[bytes]:
    """Files of tones under noise, one for each class."""
    random = np.random.default_rng(0)
    files = []
    for index, length in enumerate(seconds):
        times = np.arange(round(length * rate))[:, None] / rate
        tone = np.sin(2 * np.pi * (300 + 700 * index) * times + np.arange(channels)) * (0.3 + 0.3 * index)
        samples = np.clip(loudness * (tone + random.normal(0, 0.3, tone.shape)), -1, 1)
        buffer = io.BytesIO()
        soundfile.write(buffer, samples.astype(np.float32), rate, format=kind, subtype="PCM_24")
        files.append(buffer.getvalue())
    return files


def _library_outputs(base: Path, folder: Path, clips: list[bytes]) -> dict[str, Tensor]:
    """The outputs (N,) of each class, one clip after the other; it resamples and mixes nothing, so that this is done before."""
    extractor: Any = AutoFeatureExtractor.from_pretrained(folder)
    outputs = []
    for clip in clips:
        samples, rate = soundfile.read(io.BytesIO(clip), dtype="float32", always_2d=True)
        mono: NDArray[np.float32] = samples.mean(axis=1)
        at_rate = (
            resample_poly(mono, extractor.sampling_rate, rate).astype(np.float32) if rate != extractor.sampling_rate else mono
        )
        inputs = extractor(at_rate, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        with torch.no_grad():
            outputs.append(_library_model(base)(**inputs).logits[0])
    names, logits = AutoConfig.from_pretrained(folder).id2label, torch.stack(outputs)
    return {names[index]: logits[:, index] for index in range(len(CLASSES))}


@cache
def _library_model(folder: Path) -> Any:
    return AutoModelForAudioClassification.from_pretrained(folder).eval()


WAVEFORMS = Subject(
    name=f"{TASK} of waveforms",
    model_types=[name for name in classifiers(TASK) if name != AST],
    switches={
        "clips": list(CLIPS),
        "norm": NORMS,
        **{switch: list(values) for switch, values in OF_WAVEFORMS.items()},
        "labels": LABELS,
    },
    run=run,
)
SPECTROGRAMS = Subject(
    name=f"{TASK} of spectrograms",
    model_types=[AST],
    switches={"clips": list(CLIPS), **{switch: list(values) for switch, values in OF_SPECTROGRAMS.items()}, "labels": LABELS},
    run=run,
)
