"""Jobs on real speech, from a spec to a student that others can use: log-mel spectrograms and waveforms."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from service.spec import parse_spec
from tests.integration.test_methods import Recorder
from tests.interpreter import Interpreter
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Finished, HostDevices, Stopped

CNN: dict[str, Any] = {"architecture": {"name": "small-cnn", "width": 2}, "features": {"name": "log-mel", "mels": 16}}
AST: dict[str, Any] = {
    "architecture": {
        "name": "transformers",
        "model_type": "audio-spectrogram-transformer",
        "config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "patch_size": 8,
            "frequency_stride": 8,
            "time_stride": 8,
        },
    },
    "features": {"name": "log-mel", "mels": 24},
}
WAV2VEC2: dict[str, Any] = {
    "architecture": {
        "name": "transformers",
        "model_type": "wav2vec2",
        "config": {
            "feat_extract_norm": "layer",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": [8, 8],
            "conv_kernel": [20, 16],
            "conv_stride": [16, 16],
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "classifier_proj_size": 8,
        },
    },
    "features": {"name": "waveform", "sample_rate": 8_000},
}
ONE_NORM = {
    **WAV2VEC2,
    "architecture": WAV2VEC2["architecture"] | {"config": WAV2VEC2["architecture"]["config"] | {"feat_extract_norm": "group"}},
}
METHODS = ["soft-targets", "distillation-network", "multi-task"]

# As a user has it: the library alone, clips as they are in the files, one batch.
_TRANSFORMERS_ALONE = """
import sys
import io, json, warnings, zipfile
import numpy, soundfile, torch
from scipy.signal import resample_poly
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
warnings.simplefilter("ignore")
data, *folders = sys.argv[1:]
with zipfile.ZipFile(data) as archive:
    names = [name for name in sorted(archive.namelist()) if name.startswith("test/")]
    files = [soundfile.read(io.BytesIO(archive.read(name)), dtype="float32") for name in names]
for folder in folders:
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    student = AutoModelForAudioClassification.from_pretrained(folder).eval()
    clips = [resample_poly(clip, extractor.sampling_rate, rate) for clip, rate in files]
    options = {"padding": "max_length", "truncation": True, "max_length": getattr(extractor, "num_samples", None)}
    inputs = extractor(
        clips, sampling_rate=extractor.sampling_rate, return_tensors="pt", **(options if options["max_length"] else {})
    )
    with torch.no_grad():
        chosen = student(**inputs).logits.argmax(dim=-1)
    print(numpy.mean([student.config.id2label[i] == name.split("/")[1] for i, name in zip(chosen.tolist(), names)]))
"""


def spec(path: Path, method: dict[str, Any], *, teacher: dict[str, Any], student: dict[str, Any], **parts: Any) -> dict[str, Any]:
    few: dict[str, Any] = {"max_steps": 10, "batch_size": 10}
    return parse_spec(
        {
            "task": "audio-classification",
            "dataset": {"source": f"file:{path}"} | parts.pop("dataset", {}),
            "teacher": {**teacher, "training": few},
            "student": student,
            "method": method,
            "training": few,
            **parts,
        }
    ).model_dump(mode="json")


def train(document: dict[str, Any], folder: Path, *, stop_at: int | None = None, device: str = "cpu") -> Recorder:
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    recorder = Recorder(stop_at=stop_at)
    inputs = {source: Path(source.removeprefix("file:"))}
    placement = (HostDevices(devices=(device,)),)
    assignment = Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, placement=placement, num_threads=1)
    run(assignment, recorder)
    return recorder


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text())
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("teacher", "student"), [(WAV2VEC2, CNN), (AST, WAV2VEC2)], ids=["from waveforms", "to waveforms"])
def test_every_method_hands_on_what_a_teacher_hears_otherwise(
    spoken_digits: Path, tmp_path: Path, method: str, teacher: dict[str, Any], student: dict[str, Any]
) -> None:
    said = train(spec(spoken_digits, {"name": method}, teacher=teacher, student=student), tmp_path)
    assert isinstance(said.events[-1], Finished), said.events[-1]
    result = report(tmp_path)
    assert result["data"]["rows"] == {"train": 20, "validation": 10, "test": 10}
    assert (result["score_with_teacher"] is not None) == (method == "distillation-network")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_heard_on_a_gpu_is_exported_and_loaded_again(spoken_digits: Path, tmp_path: Path) -> None:
    document = spec(spoken_digits, {"name": "distillation-network"}, teacher=CNN, student=WAV2VEC2)
    said = train(document, tmp_path, device="cuda:0")
    assert isinstance(said.events[-1], Finished), said.events[-1]
    assert report(tmp_path)["environment"]["device"] != "cpu"


def test_a_student_is_taught_digit_and_voice_at_once_where_some_voices_are_not_known(voices: Path, tmp_path: Path) -> None:
    document = spec(voices, {"name": "multi-task"}, teacher=AST, student=WAV2VEC2, dataset={"targets": ["label", "voice"]})
    said = train(document, tmp_path)
    assert isinstance(said.events[-1], Finished), said.events[-1]
    result = report(tmp_path)
    assert result["data"]["targets"] == {"label": [str(digit) for digit in range(10)], "voice": ["man", "woman"]}
    for role in ("teacher", "student"):
        assert {name: 0 <= figures["accuracy"] <= 1 for name, figures in result[role]["metrics"].items()} == {
            "label": True,
            "voice": True,
        }


@pytest.mark.parametrize("student", [CNN, WAV2VEC2], ids=["log-mel", "waveform"])
def test_a_stop_in_the_middle_changes_nothing(spoken_digits: Path, tmp_path: Path, student: dict[str, Any]) -> None:
    document = spec(spoken_digits, {"name": "distillation-network"}, teacher=CNN, student=student)
    assert isinstance(train(document, tmp_path / "whole").events[-1], Finished)
    assert isinstance(train(document, tmp_path / "parts", stop_at=5).events[-1], Stopped)
    assert isinstance(train(document, tmp_path / "parts").events[-1], Finished)
    whole, parts = ((tmp_path / name / RESULT_FOLDER / "student/model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_the_student_is_with_transformers_alone_as_good_as_the_report_says(
    spoken_digits: Path, libraries_alone: Interpreter, tmp_path: Path
) -> None:
    students = {"ast": AST, "wav2vec2": WAV2VEC2, "one-norm": ONE_NORM}
    for name, student in students.items():
        document = spec(spoken_digits, {"name": "soft-targets"}, teacher=CNN, student=student)
        document["training"]["max_steps"] = 30
        assert isinstance(train(document, tmp_path / name).events[-1], Finished)
    folders = [str(tmp_path / name / RESULT_FOLDER / "student") for name in students]
    said = libraries_alone.run(_TRANSFORMERS_ALONE, str(spoken_digits), *folders, folder=tmp_path)
    reported = [report(tmp_path / name)["student"]["test_accuracy"] for name in students]
    assert [float(line) for line in said.split()] == pytest.approx(reported, abs=1e-9)
