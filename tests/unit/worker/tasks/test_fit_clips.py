"""Networks of waveforms from elsewhere: each clip is read as the library reads it alone, whatever is padded behind it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from service.formats import Waveform
from service.spec.methods import SimilarityPreserving
from tests.unit.worker.models.test_waveform_networks import build
from worker.data import Data, Split
from worker.data.audio.clips import SoundPreprocessing
from worker.data.audio.waveform import RawWaveform
from worker.methods.layer_mapping import map_layers
from worker.methods.layer_pairs import UnfitLayers
from worker.models import save_network
from worker.targets import Targets
from worker.tasks import TASKS, load_network

CLASSES = ["a", "b", "c"]


def data_of(*lengths: int) -> Data:
    random = np.random.default_rng(0)
    clips = [Waveform(random.normal(0, 0.2, length).astype(np.float32), 16_000) for length in lengths]
    split = Split(clips, torch.zeros(len(clips), dtype=torch.int64))
    return Data("audio-classification", {"train": split, "test": split}, Targets.of_classes(CLASSES))


def foreign(folder: Path, **settings: Any) -> Path:
    network: Any = build("wav2vec2", num_samples=4000, feat_extract_norm="group")
    network.model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(**settings).save_pretrained(folder)
    return folder


def test_clips_of_several_lengths_are_read_one_length_after_the_other_where_padding_would_change_them(tmp_path: Path) -> None:
    data, folder = data_of(4000, 2500, 4000), foreign(tmp_path)
    loaded = load_network(folder)
    reads = TASKS["audio-classification"].fit_inputs(loaded, data, source="model:one")
    clips = data.splits["test"].inputs
    with torch.no_grad():
        outputs = loaded.network(reads(reads.prepare(clips)))
        for row, clip in enumerate(clips):
            alone = Wav2Vec2FeatureExtractor()(clip.samples, sampling_rate=16_000, return_tensors="pt")
            torch.testing.assert_close(outputs[row : row + 1], loaded.network.model(**alone).logits)  # type: ignore[operator]


def test_layers_of_a_network_that_reads_each_clip_alone_are_not_compared(tmp_path: Path) -> None:
    data, loaded = data_of(4000, 2500), load_network(foreign(tmp_path))
    TASKS["audio-classification"].fit_inputs(loaded, data, source="model:one")
    method, inputs = SimilarityPreserving(name="similarity-preserving"), torch.zeros(2, 4000)
    with pytest.raises(UnfitLayers, match="cut or pad the clips to one length"):
        map_layers(method, student=loaded.network, teacher=loaded.network, student_inputs=inputs, teacher_inputs=inputs)
    one_length = load_network(tmp_path)
    TASKS["audio-classification"].fit_inputs(one_length, data_of(4000, 4000), source="model:one")  # the remedy
    map_layers(method, student=one_length.network, teacher=one_length.network, student_inputs=inputs, teacher_inputs=inputs)


@pytest.mark.parametrize(("norm", "length"), [("layer", 3000), ("group", 5000)])
def test_a_network_trained_here_reads_clips_of_the_length_that_it_was_trained_on_where_padding_changes_its_outputs(
    tmp_path: Path, norm: str, length: int
) -> None:
    network = build("wav2vec2", num_samples=5000, feat_extract_norm=norm)
    trained = SoundPreprocessing(RawWaveform(16_000), 5000)
    save_network(network, tmp_path, preprocessing=trained, targets=Targets.of_classes(CLASSES))
    reads = TASKS["audio-classification"].fit_inputs(load_network(tmp_path), data_of(3000, 2000), source="job:one")
    assert reads.input_shape([]) == (length,)
