"""The student again from other seeds: what the report says of chance, and that a repeat can be interrupted like any training."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from tests.integration.test_methods import Recorder, student, train
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Finished, Progress, Stopped, StopRequest

SEEDS = [0, 5, 7]


def spec(*, seed: int = 0, seeds: list[int] = SEEDS, method: str = "soft-targets") -> dict[str, Any]:
    return parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 20}},
            "student": {"architecture": {"name": "small-cnn", "width": 2}},
            "method": {"name": method},
            "training": {"max_steps": 10, "seed": seed},
            "evaluation": {"control": True, "seeds": seeds},
        }
    ).model_dump(mode="json")


def report(folder: Path) -> Any:
    return json.loads((folder / RESULT_FOLDER / "report.json").read_text())


def test_the_report_has_the_mean_and_the_interval_over_the_seeds(tmp_path: Path) -> None:
    assert isinstance(train(spec(), tmp_path / "all").events[-1], Finished)
    card = report(tmp_path / "all")["seeds"]
    assert card["seeds"] == SEEDS
    values = card["student"]["values"]
    assert values[0] == report(tmp_path / "all")["student"]["test_score"], "the job's own seed is not trained again"
    assert card["student"]["mean"] == pytest.approx(sum(values) / 3)
    assert card["student"]["half_width"] > 0
    gains = [ours - theirs for ours, theirs in zip(values, card["control"]["values"], strict=True)]
    assert card["gain"]["values"] == pytest.approx(gains)
    whole, half_width = report(tmp_path / "all"), card["gain"]["half_width"]
    assert (whole["gain"], whole["gain_seeds"]) == (card["gain"]["mean"], 3), "not the gain of the job's own seed"
    assert whole["gain_interval"] == pytest.approx([whole["gain"] - half_width, whole["gain"] + half_width])
    assert "points (mean of 3 seeds" in (tmp_path / "all" / RESULT_FOLDER / "README.md").read_text()

    # A repeat is what a job of that seed would have trained.
    assert isinstance(train(spec(seed=7, seeds=[]), tmp_path / "seven").events[-1], Finished)
    assert values[2] == report(tmp_path / "seven")["student"]["test_score"]
    assert "Over the seeds 0, 5, 7" in (tmp_path / "all" / RESULT_FOLDER / "README.md").read_text()


class StopsInTheRepeats(Recorder):
    """Asks for a stop in the middle of the third training of a student."""

    def stop_request(self) -> StopRequest | None:
        students = [event for event in self.events if isinstance(event, Progress) and event.phase == "student"]
        restarts = sum(after.step < before.step for before, after in pairwise(students))
        return StopRequest("drain") if restarts == 2 and students[-1].step >= 1 else None


def test_an_interrupted_repeat_changes_nothing(tmp_path: Path) -> None:
    assert isinstance(train(spec(), tmp_path / "whole").events[-1], Finished)
    recorder = StopsInTheRepeats()
    (tmp_path / "stopped").mkdir()
    run(Assignment(job_id="job_test", spec=spec(), folder=tmp_path / "stopped", num_threads=1), recorder)
    assert recorder.events[-1] == Stopped("drain")
    assert isinstance(train(spec(), tmp_path / "stopped").events[-1], Finished)
    assert report(tmp_path / "stopped")["seeds"] == report(tmp_path / "whole")["seeds"]
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
