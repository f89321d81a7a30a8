"""Given teachers are fitted to the whole data: what two samples of a step do not show must not decide how the others are read."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from service.spec.architectures import SmallCnn
from tests.unit.worker.preflight.jobs import CNN, checked, normalised, refused
from tests.unit.worker.tasks.test_fit_clips import foreign
from worker.data import measure_pixels
from worker.data.images.pixel_range import EIGHT_BIT
from worker.models import build_network, save_network
from worker.protocol import Checked
from worker.targets import Targets

GIVEN: dict[str, Any] = {"source": "model:given", "accept_score": "any"}


def test_a_few_bright_images_among_dark_ones_show_the_white_of_all(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 110, (20, 1, 8, 8)).astype(np.float32)
    images[-2:] = np.float32(255)
    path, teacher = tmp_path / "data.npz", tmp_path / "given"
    splits = ("train", "validation", "test")
    columns: dict[str, Any] = {"images": images, "labels": np.arange(20) % 2}
    np.savez(path, **{f"{split}_{name}": values for split in splits for name, values in columns.items()})
    network = build_network(SmallCnn(name="small-cnn", width=2), input_shape=(1, 8, 8), num_outputs=2)
    reads = measure_pixels(torch.from_numpy(images), rescale_factor=1.0, pixels=EIGHT_BIT)
    save_network(network, teacher, preprocessing=reads, targets=Targets.of_classes(["0", "1"]))
    document = {
        "task": "image-classification",
        "dataset": {"source": f"file:{path}", "input": "images", "targets": ["labels"]},
        "teacher": GIVEN,
        "student": {"architecture": CNN},
        "training": {"epochs": 1},
    }
    last = checked(normalised(document), tmp_path, inputs={f"file:{path}": path, "model:given": teacher})
    assert isinstance(last, Checked), last


def test_a_short_clip_among_equal_ones_shows_that_each_is_read_alone(tmp_path: Path) -> None:
    path, random = tmp_path / "clips.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index, length in enumerate((4000, 4000, 2500)):
            buffer = io.BytesIO()
            soundfile.write(buffer, random.normal(0, 0.2, length), 16_000, format="WAV")
            for split in ("train", "validation", "test"):
                archive.writestr(f"{split}/LABEL_{index}/{index}.wav", buffer.getvalue())
    document = {
        "task": "audio-classification",
        "dataset": {"source": f"file:{path}"},
        "teacher": GIVEN,
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "method": {"name": "similarity-preserving"},
        "training": {"epochs": 1},
    }
    inputs = {f"file:{path}": path, "model:given": foreign(tmp_path / "given")}
    assert "one length" in refused(normalised(document), tmp_path, inputs=inputs).message
