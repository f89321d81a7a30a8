"""Every method, from a spec to a student, and again with an interruption that must change nothing."""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.methods import METHODS, OF_TOKENS
from worker.job.attempt import run
from worker.protocol import (
    CHECKPOINT_FILE,
    RESULT_FOLDER,
    Assignment,
    Event,
    Failed,
    Finished,
    MetricPoints,
    Progress,
    Stopped,
    StopRequest,
)
from worker.training.checkpoint import read_checkpoint

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
            "teacher": {"architecture": {"name": "resnet20"}, **training},
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


@dataclass(frozen=True)
class Whole:
    """A job that nothing happened to."""

    method: str
    document: dict[str, Any]
    folder: Path
    recorder: Recorder


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The job of the method that is the parameter."""
    folder = tmp_path_factory.mktemp("whole") / "job"
    document = spec({"name": request.param} | SMALL.get(request.param, {}))
    return Whole(request.param, document, folder, train(document, folder))


OF_SAMPLES = [name for name in METHODS if name not in OF_TOKENS]


@pytest.mark.parametrize("whole", OF_SAMPLES, indirect=True)
def test_a_method_trains_a_student(whole: Whole) -> None:
    assert isinstance(whole.recorder.events[-1], Finished), whole.recorder.events[-1]
    losses = [
        value
        for event in whole.recorder.events
        if isinstance(event, MetricPoints)
        for _, value in event.points.get("student/train_loss", [])
    ]
    assert len(losses) == 12
    assert json.loads((whole.folder / RESULT_FOLDER / "report.json").read_text())["method"]["name"] == whole.method


STATELESS = {
    "soft-targets",
    "distillation-network",
    "dkd",
    "dist",
    "logit-standardization",
    "teacher-free",
    "attention-transfer",
    "similarity-preserving",
    "nst",
    "rkd",
    "pkt",
    "embedding",
}
"""Methods without weights or memory of their own and with no third network: here all that a checkpoint of one holds is what every
checkpoint holds, so two that are drawn stand for all, and `make exhaustive` resumes the others."""
DRAWN = Random(0).sample(sorted(STATELESS), 2)


@pytest.mark.parametrize(
    "whole",
    [pytest.param(name, marks=pytest.mark.exhaustive if name in STATELESS and name not in DRAWN else []) for name in OF_SAMPLES],
    indirect=True,
)
def test_a_method_resumes_exactly(whole: Whole, tmp_path: Path) -> None:
    stopped = train(whole.document, tmp_path, stop_at=STOP_AT)
    assert stopped.events[-1] == Stopped("drain")
    if whole.method in STATELESS:
        assert read_checkpoint(tmp_path / CHECKPOINT_FILE)["unfinished"][1]["objective"] == {}
    assert isinstance(train(whole.document, tmp_path).events[-1], Finished)
    assert student(tmp_path) == student(whole.folder)


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
