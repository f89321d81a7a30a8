"""What a check refuses, with its place and a remedy; and what it must not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from service.spec.architectures import SmallCnn
from service.spec.data import DatasetSpec
from tests.integration.test_sound import CNN as SOUND_CNN
from tests.integration.test_sound import WAV2VEC2
from tests.integration.test_sound import spec as sound_spec
from tests.unit.worker.preflight.jobs import CNN, checked, digits, estimate, normalised, refused
from tests.unit.worker.preflight.test_check import BERT, clips, names
from worker.data import load_data
from worker.models import build_network, save_network
from worker.preflight import findings
from worker.protocol import Failed
from worker.tasks import TASKS

VIT: dict[str, Any] = {
    "name": "transformers",
    "model_type": "vit",
    "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 4},
}


@pytest.mark.parametrize(
    ("document", "pointer", "cause"),
    [
        (
            digits(method={"name": "fitnet", "layers": {"student": ["nowhere"], "teacher": ["features"]}}),
            "/method",
            "invalid_spec",
        ),
        (
            digits(student={"architecture": VIT | {"config": VIT["config"] | {"num_attention_heads": 3}}}),
            "/student/architecture",
            "invalid_spec",
        ),
        (
            digits(teacher={"architecture": VIT | {"config": VIT["config"] | {"num_attention_heads": 3}}}),
            "/teacher/architecture",
            "invalid_spec",
        ),
        (
            digits(method={"name": "fitnet", "layers": {"student": ["classifier.2"], "teacher": ["features.0"]}}),
            "/method",
            "invalid_spec",
        ),
        (digits(training={"precision": "fp16"}), "/training/precision", "invalid_spec"),
        (digits(teacher={"architecture": CNN, "training": {"precision": "fp16"}}), "/teacher/training/precision", "invalid_spec"),
        (
            names(
                student={"architecture": BERT, "tokenizer": {"train": "wordpiece", "vocab_size": 500, "max_length": 16}},
                training={"augment": ["token-dropout"]},
            ),
            "/training/augment",
            "invalid_spec",
        ),
        (
            names(student={"architecture": BERT | {"config": BERT["config"] | {"hidden_size": 16}}, "source": "teacher-layers"}),
            "/student/source",
            "invalid_spec",
        ),
        (
            names(teacher={"architecture": BERT, "tokenizer": {"train": "wordpiece", "vocab_size": 40, "max_length": 8}}),
            "/teacher/tokenizer",
            "invalid_data",
        ),
    ],
)
def test_what_cannot_train_is_refused_at_its_place(document: dict[str, Any], pointer: str, cause: str, tmp_path: Path) -> None:
    details = refused(document, tmp_path).details
    assert (details["pointer"], details["cause"]) == (pointer, cause)


def test_a_row_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": f"text {number}", "label": number % 2}) for number in range(200)]
    path.write_text("\n".join([*rows[:150], '{"text": 7, "label": 1}', *rows[150:]]))
    source = f"file:{path}"
    failed = refused(names(dataset={"source": source}), tmp_path, inputs={source: path})
    assert (failed.details["pointer"], failed.details["cause"]) == ("/dataset/source", "invalid_data")
    assert "line 151" in failed.message


def test_a_given_teacher_of_no_numbers_is_refused(tmp_path: Path) -> None:
    data = load_data(DatasetSpec(source="builtin:digits"), None, task=TASKS["image-classification"])
    reads = TASKS[data.task].preprocessing(data, SmallCnn(name="small-cnn", width=4))
    network = build_network(SmallCnn(name="small-cnn", width=4), input_shape=(1, 8, 8), num_outputs=10)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    save_network(network, tmp_path / "model", preprocessing=reads, targets=data.targets)
    source = f"model:model_{'0' * 26}"
    details = refused(digits(teacher={"source": source}), tmp_path, inputs={source: tmp_path / "model"}).details
    assert (details["pointer"], details["cause"]) == ("/teacher/source", "non_finite_loss")

    source = "model:model_11111111111111111111111111"
    other = digits(teacher={"source": source}, dataset={"source": "builtin:digits", "targets": ["parity"]})
    details = refused(other, tmp_path, inputs={source: tmp_path / "model"}).details
    assert (details["pointer"], details["cause"]) == ("/teacher/source", "invalid_spec")


def test_a_student_that_cannot_be_exported_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("worker.export.onnx._MOST_BYTES", 100)
    assert refused(digits(exports=["onnx"]), tmp_path).details == {"pointer": "/exports", "cause": "invalid_spec"}


@pytest.mark.parametrize("most_bytes", [None, 0], ids=["tried", "looked at as shapes"])
def test_a_network_that_several_devices_cannot_train_is_refused_for_several(tmp_path: Path, most_bytes: int | None) -> None:
    path = clips(tmp_path)
    config = WAV2VEC2["architecture"]["config"] | {"conv_pos_batch_norm": True, "layerdrop": 0.1}
    hubert = WAV2VEC2 | {"architecture": {"name": "transformers", "model_type": "hubert", "config": config}}
    for resources in ({"cpu_slots": 2}, {"gpus": 2}):
        document = sound_spec(path, {}, teacher=SOUND_CNN, student=hubert) | {"resources": resources}
        failed = refused(normalised(document), tmp_path, inputs={f"file:{path}": path}, most_bytes=most_bytes)
        assert failed.details == {"pointer": "/resources", "cause": "invalid_spec"}
        assert "layerdrop" in str(failed.hint)
    estimate(
        sound_spec(path, {}, teacher=SOUND_CNN, student=hubert), tmp_path, inputs={f"file:{path}": path}, most_bytes=most_bytes
    )


def test_an_input_that_is_gone_is_told_as_that(tmp_path: Path) -> None:
    source = f"file:{tmp_path / 'gone.npz'}"
    last = checked(digits(dataset={"source": source}), tmp_path, inputs={})
    assert isinstance(last, Failed)
    assert (last.code, last.retryable, last.details) == ("input_unavailable", False, {"pointer": "/dataset/source"})


def test_settings_that_only_a_longer_training_would_reveal_are_none_of_the_checks(tmp_path: Path) -> None:
    wild = {"optimizer": {"name": "sgd", "learning_rate": 1000.0, "momentum": 0.99}, "schedule": {"name": "constant"}}
    estimate(digits(teacher={"architecture": CNN, "training": wild}, training=wild, evaluation={"control": True}), tmp_path)


def test_a_gpus_number_format_is_no_fault_on_the_cpu_that_checks_and_what_it_saves_counts(tmp_path: Path) -> None:
    memory = {
        precision: estimate(
            digits(
                student={"architecture": {"name": "small-cnn", "width": 64}},
                training={"precision": precision, "batch_size": 1024},
                resources={"gpus": 1},
            ),
            tmp_path,
        ).memory_gib
        for precision in ("fp32", "fp16", "auto")
    }
    assert memory["fp16"] == memory["auto"]
    assert memory["auto"] is not None
    assert memory["fp32"] is not None
    assert memory["auto"] < memory["fp32"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError("no memory"), OSError("no space left on device")])
def test_the_checks_own_trouble_refuses_no_job(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(findings, "profile_step", broken)
    last = checked(digits(), tmp_path)
    assert isinstance(last, Failed)
    assert last.retryable
    assert last.code in {"trainer_error", "out_of_memory"}
