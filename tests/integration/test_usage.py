"""The lines of Python in a model card, run as they are printed, beside the student and one sample of the data."""

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image

from service.spec import parse_spec
from service.spec.data import DatasetSpec
from tests.integration.test_sound import AST, CNN, WAV2VEC2, train
from worker.data import load_data
from worker.protocol import RESULT_FOLDER, Finished

SMALL_CNN: dict[str, Any] = {"architecture": {"name": "small-cnn", "width": 2}}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VIT: dict[str, Any] = {"architecture": {"name": "transformers", "model_type": "vit", "config": {**ENCODER, "patch_size": 4}}}
BERT: dict[str, Any] = {
    "architecture": {"name": "transformers", "model_type": "bert", "config": ENCODER},
    "tokenizer": {"train": "wordpiece", "vocab_size": 300, "max_length": 16},
}
# At the rate of the clips as they are, which the library's extractors do not change.
WAVEFORM = {**WAV2VEC2, "features": {"name": "waveform", "sample_rate": 16_000}}

STUDENTS: dict[str, tuple[str, list[str], dict[str, Any], str]] = {
    "own, of images": ("image-classification", ["label"], SMALL_CNN, r"\d"),
    "own, of two targets": ("image-classification", ["label", "parity"], SMALL_CNN, r"label \d\nparity (even|odd)"),
    "own, of sound": ("audio-classification", ["label"], CNN, r"\d"),
    "of images": ("image-classification", ["label"], VIT, r"\d"),
    "of texts": ("text-classification", ["label"], BERT, r"[A-Z]\w+"),
    "of texts, of two targets": ("text-classification", ["label", "kind"], BERT, r"label [A-Z]\w+\nkind [a-z]+"),
    "of spectrograms": ("audio-classification", ["label"], AST, r"\d"),
    "of waveforms": ("audio-classification", ["label"], WAVEFORM, r"\d"),
}
"""Each a task, its targets, the network, and what its program prints."""

# Each in a namespace of its own; one process, since most of its time is imports.
_RUN_EACH = """
import contextlib, io, json, os, sys
printed = {}
for folder, program in json.load(sys.stdin).items():
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(program, {})
    printed[folder] = said.getvalue()
json.dump(printed, sys.stdout)
"""


def write_samples(folder: Path, spoken_digits: Path) -> None:
    pixels = load_data(DatasetSpec(source="builtin:digits"), None, task="image-classification").splits["test"].inputs[0, 0]
    Image.fromarray(pixels.numpy()).save(folder / "image.png")
    with zipfile.ZipFile(spoken_digits) as archive:
        clip, rate = soundfile.read(io.BytesIO(archive.read(archive.namelist()[0])))
    soundfile.write(folder / "clip.wav", clip, rate)


@pytest.fixture(scope="module")
def printed(spoken_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each student's program prints, once the student was trained for a step."""
    few = {"max_steps": 1, "batch_size": 10}
    sources = {"image-classification": "builtin:digits", "text-classification": "builtin:languages"}
    programs, names = {}, {}
    for name, (task, targets, student, _) in STUDENTS.items():
        folder = tmp_path_factory.mktemp("student")
        document = {
            "task": task,
            "dataset": {"source": sources.get(task, f"file:{spoken_digits}"), "targets": targets},
            "teacher": {**student, "training": few},
            "student": student,
            "method": {"name": "multi-task"},
            "training": few,
        }
        assert isinstance(train(parse_spec(document).model_dump(mode="json"), folder).events[-1], Finished)
        result = folder / RESULT_FOLDER
        card = (result / "README.md").read_text(encoding="utf-8")
        (programs[str(result)],) = re.findall(r"^## Use\n\n```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
        names[str(result)] = name
        write_samples(result, spoken_digits)
    done = subprocess.run([sys.executable, "-c", _RUN_EACH], input=json.dumps(programs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {names[folder]: said for folder, said in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", STUDENTS)
def test_what_the_model_card_prints_runs(printed: dict[str, str], name: str) -> None:
    assert re.fullmatch(STUDENTS[name][3], printed[name].strip()), printed[name]
