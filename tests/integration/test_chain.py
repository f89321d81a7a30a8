"""Chains of trainings in one job: who is taught by whom, what is told of it, and an interruption in the middle of one."""

import json
from pathlib import Path
from typing import Any

from service.spec import parse_spec
from tests.integration.test_methods import Recorder, spec, student
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Event, Finished, MetricPoints, PhaseStarted, Stopped, StopRequest
from worker.tasks import load_network

GENERATIONS = {"name": "born-again", "generations": 3, "ensemble": True}


def trainings(events: list[Event]) -> list[PhaseStarted]:
    return [event for event in events if isinstance(event, PhaseStarted) and event.message.startswith("Training")]


class StopIn(Recorder):
    """Stops the job at the third step of the training whose beginning says ``word``."""

    def __init__(self, word: str | None) -> None:
        super().__init__()
        self._word = word
        self._steps = 0

    def stop_request(self) -> StopRequest | None:
        begun = [
            event.message
            for event in self.events
            if isinstance(event, PhaseStarted) and event.message.startswith(("Training", "Fine-tuning"))
        ]
        self._steps += bool(begun and self._word and self._word in begun[-1])
        return StopRequest("drain") if self._steps >= 3 else None


def train(document: dict[str, Any], folder: Path, *, stop_in: str | None = None) -> list[Event]:
    folder.mkdir(exist_ok=True)
    recorder = StopIn(stop_in)
    run(Assignment(job_id="job_test", spec=document, folder=folder, num_threads=1), recorder)
    return recorder.events


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text())
    return found


def metric_names(events: list[Event]) -> set[str]:
    return {name for event in events if isinstance(event, MetricPoints) for name in event.points}


def test_generations_are_told_apart_and_a_stop_in_one_changes_nothing(tmp_path: Path) -> None:
    document = spec(GENERATIONS)
    whole = train(document, tmp_path / "whole")
    assert isinstance(whole[-1], Finished)
    assert [(event.phase, event.message.split(",")[0]) for event in trainings(whole)] == [
        ("teacher", "Training the teacher"),
        ("teacher", "Training the generation-1"),
        ("teacher", "Training the generation-2"),
        ("student", "Training the student"),
    ]
    assert {f"{role}/train_loss" for role in ("teacher", "generation-1", "generation-2", "student")} <= metric_names(whole)
    told = report(tmp_path / "whole")
    assert list(told["chain"]) == ["generation-1", "generation-2"]
    assert all(card["parameters"] == told["student"]["parameters"] for card in told["chain"].values())
    assert told["chain"]["generation-1"]["test_loss"] != told["chain"]["generation-2"]["test_loss"]
    assert 0 <= told["ensemble_score"] <= 1
    assert len(load_network(tmp_path / "whole" / RESULT_FOLDER / "generation-1").classes) == 10

    stopped = train(document, tmp_path / "stopped", stop_in="generation-2")
    assert stopped[-1] == Stopped("drain")
    resumed = train(document, tmp_path / "stopped")
    assert "generation-1/train_loss" not in metric_names(resumed)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    assert report(tmp_path / "stopped")["ensemble_score"] == told["ensemble_score"]


def test_each_assistant_is_of_its_own_architecture(tmp_path: Path) -> None:
    assistants = [{"name": "small-cnn", "width": 16}, {"name": "small-cnn", "width": 8}]
    assert isinstance(train(spec({"name": "teacher-assistant", "assistants": assistants}), tmp_path / "job")[-1], Finished)
    told = report(tmp_path / "job")
    sizes = [told["teacher"], *told["chain"].values(), told["student"]]
    assert [card["parameters"] for card in sizes] == sorted((card["parameters"] for card in sizes), reverse=True)
    assert [card["architecture"] for card in told["chain"].values()] == assistants
    assert told["ensemble_score"] is None


def test_one_generation_is_the_soft_targets_alone(tmp_path: Path) -> None:
    """The student's own seed is the spec's, whatever stands before it."""
    train(spec({"name": "born-again", "generations": 1}), tmp_path / "born")
    train(spec({"name": "soft-targets", "temperature": 1.0, "label_weight": 0.5}), tmp_path / "soft")
    assert student(tmp_path / "born") == student(tmp_path / "soft")
    assert parse_spec(spec({"name": "born-again"})).method.model_dump()["ensemble"] is False
