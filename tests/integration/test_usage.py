"""The lines of Python in a model card, run as they are printed, beside the student and one sample of the data.

What they compute in a process of their own is what the report measured.
"""

import io
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from examples.named_entities import sentences
from service.spec import parse_spec
from tests.integration.test_sound import AST, CNN, WAV2VEC2, train
from worker.data import Data, load_data
from worker.data.samples import Samples
from worker.evaluation.evaluate import predict
from worker.protocol import RESULT_FOLDER, Finished
from worker.tasks import TASKS, load_network

SMALL_CNN: dict[str, Any] = {"architecture": {"name": "small-cnn", "width": 2}}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VIT: dict[str, Any] = {"architecture": {"name": "transformers", "model_type": "vit", "config": {**ENCODER, "patch_size": 4}}}
BERT: dict[str, Any] = {
    "architecture": {"name": "transformers", "model_type": "bert", "config": ENCODER},
    "tokenizer": {"train": "wordpiece", "vocab_size": 300, "max_length": 16},
}
LONGER_BERT: dict[str, Any] = {**BERT, "tokenizer": {**BERT["tokenizer"], "max_length": 64}}
# At the rate of the clips as they are, which the library's extractors do not change.
WAVEFORM = {**WAV2VEC2, "features": {"name": "waveform", "sample_rate": 16_000}}

STUDENTS: dict[str, tuple[str, list[str], dict[str, Any], str, str]] = {
    "own, of images": ("image-classification", ["label"], SMALL_CNN, "builtin:digits", r"\d"),
    "own, of two targets": (
        "image-classification", ["label", "parity"], SMALL_CNN, "builtin:digits", r"label \d\nparity (even|odd)",
    ),
    "own, of sound": ("audio-classification", ["label"], CNN, "speech", r"\d"),
    "of images": ("image-classification", ["label"], VIT, "builtin:digits", r"\d"),
    "of texts": ("text-classification", ["label"], BERT, "builtin:languages", r"[A-Z]\w+"),
    "of texts, of two targets": (
        "text-classification", ["label", "kind"], BERT, "builtin:languages", r"label [A-Z]\w+\nkind [a-z]+",
    ),
    "of words": ("token-classification", ["tags"], LONGER_BERT, "words", r"some (\w-)?\w+\nwords (.*\n){5}\. (\w-)?\w+"),
    "of spectrograms": ("audio-classification", ["label"], AST, "speech", r"\d"),
    "of waveforms": ("audio-classification", ["label"], WAVEFORM, "speech", r"\d"),
    "own, of floats from 0 to 1": ("image-classification", ["label"], SMALL_CNN, "floats 0 to 1", r"\d"),
    "of floats from 0 to 1": ("image-classification", ["label"], VIT, "floats 0 to 1", r"\d"),
    "own, of standardised floats": ("image-classification", ["label"], SMALL_CNN, "standardised", r"\d"),
    "of standardised floats": ("image-classification", ["label"], VIT, "standardised", r"\d"),
    "own, of transparent images": ("image-classification", ["label"], SMALL_CNN, "RGBA", r"\d"),
    "of JPEGs that are turned": ("image-classification", ["label"], VIT, "turned JPEG", r"\d"),
}  # fmt: skip
"""Each a task, its targets, the network, its data, and what its program prints."""

# Each in a namespace of its own; one process, since most of its time is imports.
_RUN_EACH = """
import contextlib, io, json, os, sys
ran = {}
for folder, program in json.load(sys.stdin).items():
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(program, names := {})
    ran[folder] = said.getvalue(), names["logits"].tolist()
json.dump(ran, sys.stdout)
"""


def write_data(kind: str, path: Path) -> Path:
    """Words with tags; or images of 8x12 pixels, of two classes, in 8-bit files or as floats."""
    if kind == "words":
        path.write_text("".join(json.dumps(sentence.as_tags()) + "\n" for sentence in sentences(60)), encoding="utf-8")
        return path
    images = np.random.default_rng(0).integers(0, 256, size=(12, 8, 12, 4 if kind == "RGBA" else 3), dtype=np.uint8)
    if kind in ("RGBA", "turned JPEG"):
        with zipfile.ZipFile(path, "w") as archive:
            for index, pixels in enumerate(images):
                buffer, exif = io.BytesIO(), Image.Exif()
                exif[0x0112] = 6
                Image.fromarray(pixels).save(buffer, *(["PNG"] if kind == "RGBA" else ["JPEG"]), exif=exif)
                split = ("train", "validation", "test")[index // 2 % 3]
                archive.writestr(f"{split}/{index % 2}/{index:02}.{'png' if kind == 'RGBA' else 'jpg'}", buffer.getvalue())
        return path
    floats = images.astype(np.float32) / 255
    floats = floats if kind == "floats 0 to 1" else (floats - 0.5) / 0.25
    splits = {split: floats[start::3] for start, split in enumerate(("train", "validation", "test"))}
    columns: dict[str, dict[str, Any]] = {"image": splits, "label": dict.fromkeys(splits, np.arange(4) % 2)}
    np.savez(path, **{f"{split}_{name}": values[split] for name, values in columns.items() for split in splits})
    return path


def write_sample(folder: Path, data: Data, file: Path | None) -> None:
    """The first row of the test split, as a file of its own."""
    row = data.splits["test"].inputs[0]
    if TASKS[data.task].info.input_kind == "audio":
        soundfile.write(folder / "clip.wav", row.samples, row.rate, subtype="FLOAT")
    elif file is not None and file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            (folder / "image.png").write_bytes(archive.read(min(name for name in archive.namelist() if "test/" in name)))
    elif TASKS[data.task].info.input_kind == "image":
        pixels = row.permute(1, 2, 0).numpy()
        if data.pixel_range.is_measured or data.max_value == 16:
            np.save(folder / "image.npy", pixels)
        else:
            eight_bit = pixels if data.max_value else (pixels * 255).round().astype(np.uint8)
            Image.fromarray(eight_bit.squeeze()).save(folder / "image.png")


@dataclass(frozen=True)
class Ran:
    """A student's program: what it printed, its outputs for the sample, and what the student gave for it in the test split."""

    said: str
    logits: Tensor
    measured: Tensor | None


@pytest.fixture(scope="module")
def ran(spoken_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Each student's program, once the student was trained for a step."""
    few = {"max_steps": 1, "batch_size": 10}
    programs, names, measured = {}, {}, {}
    for name, (task, targets, student, kind, _) in STUDENTS.items():
        folder = tmp_path_factory.mktemp("student")
        is_builtin = kind.startswith("builtin:")
        suffix = {"RGBA": ".zip", "turned JPEG": ".zip", "words": ".jsonl"}.get(kind, ".npz")
        file = None if is_builtin else spoken_digits if kind == "speech" else write_data(kind, folder / f"data{suffix}")
        document = {
            "task": task,
            "dataset": {"source": kind if file is None else f"file:{file}", "targets": targets},
            "teacher": {**student, "training": few},
            "student": student,
            "method": {"name": "soft-targets" if kind == "words" else "multi-task"},
            "training": few,
        }
        spec = parse_spec(document)
        assert isinstance(train(spec.model_dump(mode="json"), folder).events[-1], Finished)
        result = folder / RESULT_FOLDER
        card = (result / "README.md").read_text(encoding="utf-8")
        (programs[str(result)],) = re.findall(r"^## Use\n\n```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
        names[str(result)] = name
        if TASKS[spec.task].info.input_kind != "text":
            data = load_data(spec.dataset, file, task=TASKS[spec.task])
            write_sample(result, data, file)
            measured[name] = outputs_of_first(result / "student", data)
    done = subprocess.run([sys.executable, "-c", _RUN_EACH], input=json.dumps(programs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {
        names[folder]: Ran(said, torch.tensor(logits), measured.get(names[folder]))
        for folder, (said, logits) in json.loads(done.stdout).items()
    }


def outputs_of_first(folder: Path, data: Data) -> Tensor:
    """The student's outputs for the first row of the test split, by the way that the report's figures were measured."""
    loaded = load_network(folder)
    return predict(loaded.network, Samples.of(data.splits["test"], loaded.preprocessing, device=torch.device("cpu")))[:1]


@pytest.mark.parametrize("name", STUDENTS)
def test_what_the_model_card_prints_runs(ran: dict[str, Ran], name: str) -> None:
    assert re.fullmatch(STUDENTS[name][-1], ran[name].said.strip()), ran[name].said


@pytest.mark.parametrize(
    "name", [name for name, (task, *_) in STUDENTS.items() if task not in ("text-classification", "token-classification")]
)
def test_a_student_computes_of_a_raw_file_in_a_process_of_its_own_what_the_report_measured(
    ran: dict[str, Ran], name: str
) -> None:
    measured = ran[name].measured
    assert measured is not None
    torch.testing.assert_close(ran[name].logits, measured, atol=1e-4 * measured.abs().max().item(), rtol=1e-4)
