"""What a check passes, and what it says that the job will take."""

import io
import json
import math
import wave
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest

from service.spec.methods import METHODS, OF_TOKENS
from tests.access import fetched_for_check
from tests.integration.test_embeddings import SOURCE, teacher
from tests.integration.test_embeddings import spec as embedding_spec
from tests.integration.test_language_models import SMALL as SMALL_OF_TOKENS
from tests.integration.test_language_models import spec as language_spec
from tests.integration.test_language_models import texts
from tests.integration.test_methods import SMALL
from tests.integration.test_sound import AST, CNN, WAV2VEC2
from tests.integration.test_sound import spec as sound_spec
from tests.unit.worker.preflight.jobs import Recorder, checked, digits, estimate, normalised
from worker.job.attempt import run
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Failed, PhaseStarted, Progress, Stopped, StopRequest

__all__ = ["teacher", "texts"]

BERT: dict[str, Any] = {
    "name": "transformers",
    "model_type": "bert",
    "config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
TOKENIZER: dict[str, Any] = {"train": "wordpiece", "vocab_size": 600, "max_length": 24}


def names(**changes: Any) -> dict[str, Any]:
    """A job of texts."""
    document: dict[str, Any] = {
        "task": "text-classification",
        "dataset": {"source": "builtin:languages"},
        "teacher": {"architecture": BERT, "tokenizer": TOKENIZER},
        "student": {"architecture": BERT | {"config": BERT["config"] | {"num_hidden_layers": 1}}},
    }
    return normalised(document | changes)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS and name != "embedding"])
def test_every_method_is_tried(name: str, tmp_path: Path) -> None:
    document = digits(method={"name": name} | SMALL.get(name, {}), teacher={"architecture": {"name": "resnet8x4"}})
    found = estimate(document, tmp_path)
    assert {"student", "teacher"} <= found.parameters.keys()
    for figures in (found.parameters, found.flops, found.memory_by_training_gib, found.steps):
        assert all(value > 0 and math.isfinite(value) for value in figures.values())
    assert found.memory_gib == max(found.memory_by_training_gib.values())
    assert found.notes == []


@pytest.mark.parametrize("name", sorted(OF_TOKENS))
def test_every_method_of_language_models_is_tried(name: str, texts: Path, tmp_path: Path) -> None:
    document = language_spec(texts, {"name": name} | SMALL_OF_TOKENS.get(name, {}))
    found = estimate(document, tmp_path, inputs={f"file:{texts}": texts})
    assert found.steps == {"teacher": 4, "student": 6}
    assert found.flops["student"] > 0


def test_an_encoder_is_tried_with_the_vectors_of_a_given_one(teacher: Path, tmp_path: Path) -> None:
    found = estimate(embedding_spec(), tmp_path, inputs={SOURCE: teacher})
    assert found.parameters["teacher"] > found.parameters["student"] > 0
    assert found.steps == {"student": 40}


@pytest.mark.parametrize(("teacher_part", "student_part"), [(AST, CNN), (WAV2VEC2, AST)])
def test_sound_is_tried_on_its_longest_clips(teacher_part: Any, student_part: Any, tmp_path: Path) -> None:
    path = clips(tmp_path)
    found = estimate(sound_spec(path, {}, teacher=teacher_part, student=student_part), tmp_path, inputs={f"file:{path}": path})
    assert found.num_samples == 18
    assert found.steps == {"teacher": 10, "student": 10}


def clips(folder: Path) -> Path:
    """A dataset of 24 of them, each longer than the one before."""
    path = folder / "clips.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(24):
            archive.writestr(f"{'high' if number % 2 else 'low'}/{number}.wav", clip(seconds=0.2 + 0.02 * number))
    return path


def clip(*, seconds: float) -> bytes:
    """Noise, as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.random.default_rng(0).integers(-9999, 9999, round(8000 * seconds)).astype(np.int16).tobytes())
    return buffer.getvalue()


def test_several_targets_teachers_and_views_are_tried_together(tmp_path: Path) -> None:
    found = estimate(
        digits(
            dataset={"source": "builtin:digits", "targets": ["label", "parity"]},
            teacher=[
                {"architecture": {"name": "small-cnn", "width": 8}, "targets": ["label"]},
                {"architecture": {"name": "small-cnn", "width": 6}},
            ],
            training={"epochs": 2, "augment": ["flip", "crop"], "views": 100_000},
        ),
        tmp_path,
    )
    assert found.parameters.keys() == {"teacher-1", "teacher-2", "student"}


def test_a_teacher_that_is_asked_in_each_step_is_part_of_the_steps_operations(tmp_path: Path) -> None:
    once = estimate(digits(), tmp_path).flops["student"]
    assert estimate(digits(training={"augment": ["flip"]}), tmp_path).flops["student"] > 2 * once


@pytest.mark.parametrize(
    "document",
    [
        digits(
            method={"name": "distillation-network"},
            training={"epochs": 2, "batch_size": 100, "gradient_accumulation": 5},
            evaluation={"control": True, "seeds": [3]},
        ),
        digits(
            method={"name": "teacher-assistant", "assistants": [{"name": "small-cnn", "width": 6}]}, training={"max_steps": 3}
        ),
        names(
            teacher={"architecture": BERT, "tokenizer": TOKENIZER, "training": {"max_steps": 2}},
            training={"epochs": 1, "batch_size": 1000},
        ),
    ],
)
def test_parameters_and_steps_are_those_of_the_job(document: dict[str, Any], tmp_path: Path) -> None:
    found = estimate(document, tmp_path)
    recorder = Recorder()
    run(Assignment("job_test", document, tmp_path, num_threads=1), recorder)
    report = json.loads((tmp_path / RESULT_FOLDER / "report.json").read_text())
    told = [role for role in ("teacher", "student", "control") if report.get(role) is not None]
    assert {role: found.parameters[role] for role in told} == {role: report[role]["parameters"] for role in told}
    assert found.parameters.keys() - told == report["chain"].keys()

    done = [event for event in recorder.events if isinstance(event, Progress) and event.step == event.total_steps]
    steps = {
        phase: sum({event.step: event.total_steps for event in done if event.phase == phase}.values())
        for phase in ("teacher", "student", "control")
    }
    seeds = len(document["evaluation"]["seeds"])
    assert found.steps["student"] == steps["student"]
    assert found.steps.get("control", 0) == steps["control"]
    assert found.steps.get("repeats", 0) == seeds * (steps["student"] + steps["control"])
    if not report["chain"]:
        assert found.steps["teacher"] == steps["teacher"]


def test_a_teacher_that_another_job_is_still_to_train_is_built_as_that_job_says(tmp_path: Path) -> None:
    source = f"job:job_{'0' * 26}"
    document = digits(teacher={"source": source})
    planned = digits(student={"architecture": {"name": "small-cnn", "width": 16}})
    found = estimate(document, tmp_path, planned={source: planned})
    assert found.steps.keys() == found.flops.keys() == {"student"}
    assert found.parameters["teacher"] > found.parameters["student"]
    its_teacher = estimate(digits(teacher={"source": f"{source}/teacher"}), tmp_path, planned={f"{source}/teacher": planned})
    assert its_teacher.steps.keys() == {"student"}
    assert its_teacher.parameters["teacher"] == estimate(planned, tmp_path).parameters["teacher"]
    last = checked(document, tmp_path)
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("input_unavailable", {"pointer": "/teacher/source"})


def test_a_teacher_of_the_hub_that_cannot_be_asked_for_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    document = digits(teacher={"source": "hub:anna/digits"})
    found = estimate(document, tmp_path, away=fetched_for_check(document, tmp_path).away)
    assert "hub:anna/digits cannot be fetched" in found.notes[0]
    assert (found.memory_gib, found.steps, list(found.parameters)) == (None, {"student": 60}, ["student"])
    document = names(teacher={"source": "hub:anna/names"})
    of_texts = estimate(document, tmp_path, away=fetched_for_check(document, tmp_path).away)
    assert (of_texts.parameters, of_texts.num_samples) == ({}, 3360)


def test_networks_too_large_for_the_check_are_looked_at_as_shapes(texts: Path, tmp_path: Path) -> None:
    for document, inputs in (
        (names(evaluation={"control": True}), {}),
        (names(resources={"gpus": 1}), {}),
        (language_spec(texts, {"name": "forward-kl"}), {f"file:{texts}": texts}),
    ):
        profiles = estimate(document, tmp_path, inputs=inputs)
        faked = estimate(document, tmp_path, inputs=inputs, most_bytes=0)
        assert (faked.parameters, faked.steps) == (profiles.parameters, profiles.steps)
        assert "too large" in faked.notes[0]
        assert faked.memory_gib == pytest.approx(profiles.memory_gib, rel=0.1)
        assert faked.flops["teacher"] == pytest.approx(profiles.flops["teacher"], rel=0.7)


def test_a_given_teacher_too_large_for_the_check_is_counted(teacher: Path, tmp_path: Path) -> None:
    found = estimate(embedding_spec(), tmp_path, inputs={SOURCE: teacher}, most_bytes=0)
    assert found.parameters["teacher"] > 0
    assert (found.memory_gib, found.steps) == (None, {"student": 40})


def test_a_check_can_be_stopped_and_says_what_it_does(tmp_path: Path) -> None:
    stopped, whole = Recorder(StopRequest("cancel")), Recorder()
    for recorder in (stopped, whole):
        check(Assignment("job_test", digits(), tmp_path, num_threads=1, check_only=True), recorder)
    assert stopped.events == [Stopped("cancel")]
    assert {event.phase for event in whole.events if isinstance(event, PhaseStarted)} == {"checking"}
    assert not any(isinstance(event, Progress) for event in whole.events)
