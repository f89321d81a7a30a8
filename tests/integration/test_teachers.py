"""Several teachers: what is taught, what is told of it, and an interruption in the middle of one's training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.spec import parse_spec
from service.spec.data import DatasetSpec
from tests.integration.test_chain import metric_names, report, train
from tests.integration.test_methods import Recorder, student
from worker.data import load_data
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, CheckpointWritten, Finished, Stopped
from worker.tasks import TASKS
from worker.teachers.ensemble import Teachers
from worker.trained import load_teacher

CNN = {"name": "small-cnn", "width": 8}
SHORT = {"max_steps": 3}


def spec(teacher: Any, method: Any = None, **changes: Any) -> dict[str, Any]:
    return parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": teacher,
            "student": {"architecture": {"name": "small-cnn", "width": 4}},
            "method": method or {},
            "training": {"max_steps": 6},
        }
        | changes
    ).model_dump(mode="json")


TWO = [
    {"architecture": CNN, "training": SHORT, "weight": 3.0},
    {"architecture": {"name": "resnet20"}, "training": SHORT},
]


def test_two_teachers_are_trained_reported_and_resumed_exactly(tmp_path: Path) -> None:
    whole = train(spec(TWO), tmp_path / "whole")
    assert isinstance(whole[-1], Finished), whole[-1]
    assert {"teacher-1/train_loss", "teacher-2/train_loss", "student/train_loss"} <= metric_names(whole)
    told = report(tmp_path / "whole")
    first, second = told["teachers"]
    assert (first["weight"], second["weight"], first["architecture"]) == (3.0, 1.0, CNN)
    for figure in ("parameters", "bytes"):
        assert told["teacher"][figure] == first[figure] + second[figure]
    assert told["teacher"]["latency_ms"]["batch_1"] == first["latency_ms"]["batch_1"] + second["latency_ms"]["batch_1"]
    assert told["teacher"]["source"] == "train + train"
    assert told["chain"] == {}
    assert "teacher 2" in (tmp_path / "whole" / RESULT_FOLDER / "report.html").read_text()

    stopped = train(spec(TWO), tmp_path / "stopped", stop_in="teacher-2")
    assert stopped[-1] == Stopped("drain")
    resumed = train(spec(TWO), tmp_path / "stopped")
    assert "teacher-1/train_loss" not in metric_names(resumed)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    assert report(tmp_path / "stopped")["teacher"]["test_loss"] == told["teacher"]["test_loss"]


def test_the_mean_is_of_probabilities_by_weight(tmp_path: Path) -> None:
    train(spec(TWO), tmp_path / "job")
    data = load_data(DatasetSpec(source="builtin:digits"), None, task=TASKS["image-classification"])
    folder = tmp_path / "job" / RESULT_FOLDER
    members = {role: load_teacher(folder / role, source=role, data=data) for role in ("teacher-1", "teacher-2")}
    split = data.splits["test"]
    together = Teachers(members, (3.0, 1.0), data.targets).outputs(split)
    first, second = (member.outputs(split).softmax(-1) for member in members.values())
    torch.testing.assert_close(together.exp(), 0.75 * first + 0.25 * second)
    right = (together.argmax(-1) == split.labels).double().mean().item()
    assert report(tmp_path / "job")["teacher"]["test_accuracy"] == pytest.approx(right)


def test_teachers_are_asked_for_each_augmented_view(tmp_path: Path) -> None:
    training = {"max_steps": 3, "augment": [{"name": "crop", "padding": 1}]}
    assert isinstance(train(spec(TWO, training=training), tmp_path / "job")[-1], Finished)


def two_targets(path: Path, *, unit: float = 1.0) -> dict[str, Any]:
    """Images whose mean says their size, told in another ``unit``, and whose brighter half says their side."""
    random = np.random.default_rng(0)
    size, side = random.random(120), random.integers(0, 2, 120)
    images = (200 * size[:, None, None] * np.ones((1, 8, 8))).astype(np.uint8)
    images[side == 1, :, 4:] += 50
    images[side == 0, :, :4] += 50
    np.savez(path, image=images, side=side, size=(size / unit).astype(np.float32))
    return {"source": f"file:{path}", "targets": ["side", "size"]}


def run_on_file(document: dict[str, Any], folder: Path, **inputs: Path) -> list[Any]:
    folder.mkdir(exist_ok=True)
    recorder = Recorder()
    source = document["dataset"]["source"]
    given = {source: Path(source.removeprefix("file:"))} | {f"model:{name}": path for name, path in inputs.items()}
    run(Assignment(job_id="job_test", spec=document, folder=folder, num_threads=1, inputs=given), recorder)
    return recorder.events


def test_teachers_by_target_may_come_from_jobs_of_that_target_alone(tmp_path: Path) -> None:
    dataset = two_targets(tmp_path / "data.npz")
    for name in ("side", "size"):
        alone = spec({"architecture": CNN, "training": SHORT}, dataset=dataset | {"targets": [name]})
        assert isinstance(run_on_file(alone, tmp_path / name)[-1], Finished)
    folders = {name: tmp_path / name / RESULT_FOLDER / "student" for name in ("side", "size")}
    by_target = [{"source": f"model:{name}", "targets": [name]} for name in folders]
    events = run_on_file(spec(by_target, dataset=dataset), tmp_path / "both", **folders)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "both")
    assert [list(card["metrics"]) for card in told["teachers"]] == [["side"], ["size"]]
    assert list(told["teacher"]["metrics"]) == ["side", "size"]

    in_thousandths = two_targets(tmp_path / "thousandths.npz", unit=0.001)
    last = run_on_file(spec(by_target, dataset=in_thousandths), tmp_path / "units", **folders)[-1]
    assert (last.code, last.details["pointer"], last.details["target"]) == ("teacher_unfit", "/teacher/1", "size")
    assert "R² -" in last.message


def test_what_nobody_teaches_is_learnt_from_labels_alone(tmp_path: Path) -> None:
    dataset = two_targets(tmp_path / "data.npz")
    teacher = {"architecture": CNN, "training": SHORT, "targets": ["size"]}
    events = run_on_file(spec(teacher, {"name": "multi-task"}, dataset=dataset), tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    assert any(isinstance(event, CheckpointWritten) for event in events)
    told = report(tmp_path / "job")
    assert list(told["teacher"]["metrics"]) == ["size"]
    assert list(told["student"]["metrics"]) == ["side", "size"]
    assert list(told["agreement_by_target"]) == ["size"]
    json.dumps(told, allow_nan=False)
