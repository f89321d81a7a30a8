"""A student's other forms: asked for in a spec, written, and measured like the student itself."""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from service.spec import parse_spec
from tests.integration.test_methods import train
from worker.data.tensors import only_tensor
from worker.protocol import RESULT_FOLDER, Failed, Finished
from worker.tasks import load_network


def spec(exports: list[str], *, student: dict[str, Any] | None = None) -> dict[str, Any]:
    return parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 2}},
            "student": {"architecture": student or {"name": "small-cnn", "width": 4}},
            "training": {"max_steps": 60},
            "exports": exports,
        }
    ).model_dump(mode="json")


def test_a_student_is_written_as_onnx_in_float32_and_with_8_bit_weights(tmp_path: Path) -> None:
    assert isinstance(train(spec(["onnx", "onnx-int8"]), tmp_path).events[-1], Finished)
    result = tmp_path / RESULT_FOLDER
    report = json.loads((result / "report.json").read_text())
    plain, small = report["exports"]

    assert (plain["name"], small["name"]) == ("student.onnx", "student.int8.onnx")
    assert plain["largest_difference"] < 1e-4
    assert plain["test_score"] == report["student"]["test_score"]
    assert plain["agreement"] == 1.0
    assert small["agreement"] > 0.9
    assert small["bytes"] == (result / "student.int8.onnx").stat().st_size
    assert "`student.int8.onnx`" in (result / "README.md").read_text()

    loaded = load_network(result / "student")
    images = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8)
    inputs = loaded.preprocessing(images)
    session = onnxruntime.InferenceSession(result / "student.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": only_tensor(inputs).numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), loaded.network(inputs), atol=1e-4, rtol=1e-4)


def test_the_8_bit_form_alone_leaves_no_other_file(tmp_path: Path) -> None:
    assert isinstance(train(spec(["onnx-int8"]), tmp_path).events[-1], Finished)
    assert [path.name for path in (tmp_path / RESULT_FOLDER).glob("*.onnx")] == ["student.int8.onnx"]


def test_what_cannot_be_exported_fails_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.export.onnx._MOST_BYTES", 100)
    *_, last = train(spec(["onnx"]), tmp_path).events
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/exports"})
    assert "take a smaller student, or leave the export out" in last.message
