"""Every method, from a spec to a student, and again with an interruption that must change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.methods import METHODS, OF_TOKENS
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Event, Failed, Finished, MetricPoints, Progress, Stopped, StopRequest

SMALL: dict[str, Any] = {
    "crd": {"negatives": 64},
    "review": {"width": 16},
    "born-again": {"generations": 2, "ensemble": True},
    "teacher-assistant": {"assistants": [{"name": "small-cnn", "width": 8}]},
}
STOP_AT = 5


def spec(method: dict[str, Any]) -> dict[str, Any]:
    """A teacher and a student that differ in width, depth and kind."""
    # A peer is trained in the student's own steps.
    training = {} if method.get("name") == "deep-mutual" else {"training": {"max_steps": 3}}
    return parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": {"architecture": {"name": "resnet8x4"}, **training},
            "student": {"architecture": {"name": "small-cnn", "width": 4}},
            "method": method,
            "training": {"max_steps": 12},
        }
    ).model_dump(mode="json")


class Recorder:
    """Keeps what the trainer says; asks it to stop once the student has done ``stop_at`` steps."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.events: list[Event] = []
        self._stop_at = stop_at
        self._looks = 0

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def stop_request(self) -> StopRequest | None:
        if self._stop_at is None or not any(isinstance(event, Progress) and event.phase == "student" for event in self.events):
            return None
        self._looks += 1
        return StopRequest("drain") if self._looks >= self._stop_at else None


def train(
    document: dict[str, Any], folder: Path, *, stop_at: int | None = None, inputs: dict[str, Path] | None = None
) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder(stop_at=stop_at)
    run(Assignment(job_id="job_test", spec=document, folder=folder, num_threads=1, inputs=inputs or {}), recorder)
    return recorder


def student(folder: Path) -> bytes:
    return (folder / RESULT_FOLDER / "student" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS])
def test_a_method_trains_a_student_and_resumes_exactly(name: str, tmp_path: Path) -> None:
    document = spec({"name": name} | SMALL.get(name, {}))
    whole = train(document, tmp_path / "whole")
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    losses = [
        value
        for event in whole.events
        if isinstance(event, MetricPoints)
        for _, value in event.points.get("student/train_loss", [])
    ]
    assert len(losses) == 12
    assert json.loads((tmp_path / "whole" / RESULT_FOLDER / "report.json").read_text())["method"]["name"] == name

    stopped = train(document, tmp_path / "stopped", stop_at=STOP_AT)
    assert stopped.events[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped").events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_several_terms_at_once_and_layers_by_name_train_a_student(tmp_path: Path) -> None:
    layers = {"student": ["features.7", "features"], "teacher": ["layer2", "layer3"]}
    terms = [
        {"name": "labels"},
        {"name": "soft-targets"},
        {"name": "attention-transfer", "layers": layers},
        {"name": "rkd", "weight": 0.1},
    ]
    assert isinstance(train(spec({"terms": terms}), tmp_path / "job").events[-1], Finished)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (
            {"name": "fitnet", "layers": {"student": ["features.99"], "teacher": ["layer1"]}},
            "no layer 'features.99'; it has features",
        ),
        ({"name": "nst", "layers": {"student": ["classifier.2"], "teacher": ["layer1"]}}, "nst compares maps"),
        ({"name": "fitnet", "layers": {"student": ["classifier.2"], "teacher": ["layer1"]}}, "cannot be compared"),
    ],
)
def test_layers_that_do_not_fit_fail_the_job_before_the_teacher_is_trained(
    tmp_path: Path, method: dict[str, Any], words: str
) -> None:
    recorder = train(spec(method), tmp_path / "job")
    (last,) = recorder.events
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/method"})
    assert words in last.message
