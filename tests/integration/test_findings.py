"""What a finished job tells against its own student: where it is at chance, and where its control is better."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from tests.integration.test_chain import report
from tests.integration.test_given_teachers import warnings
from tests.integration.test_teachers import run_on_file, two_targets
from worker.protocol import RESULT_FOLDER, Finished

CNN = {"name": "small-cnn", "width": 4}
NOTHING: dict[str, Any] = {"max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-9}}
"""A training that changes nothing."""


def spec(dataset: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = {
        "task": "image-classification",
        "dataset": dataset,
        "teacher": {"architecture": CNN, "training": NOTHING},
        "student": {"architecture": CNN | {"width": 2}},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def test_a_student_of_a_teacher_that_knows_nothing_is_told_of_everywhere(tmp_path: Path) -> None:
    document = spec(
        {"source": "builtin:digits"},
        method={"name": "soft-targets", "label_weight": 0.0},
        training={"max_steps": 60, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
        evaluation={"control": True},
        require={"gain": ">0", "parameters": 1e6, "relative_to_teacher": 0.01},
    )
    events = run_on_file(document, tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    found = warnings(events)
    assert {"teacher_at_chance", "control_beats_student", "teacher_worse_than_control"} <= found.keys()
    (of_student,) = found.keys() & {"student_at_chance", "student_below_constant"}
    card, folder = report(tmp_path / "job"), tmp_path / "job" / RESULT_FOLDER
    low, high = card["gain_interval"]
    assert low < card["gain"] < high < 0
    assert card["gain_seeds"] == 1
    assert card["over_teacher"] == pytest.approx(card["student"]["test_score"] - card["teacher"]["test_score"])
    low, high = card["over_teacher_interval"]
    assert low < card["over_teacher"] < high
    assert events[-1].result["verdict"] == card["verdict"]
    assert [(gate["figure"], gate["held"]) for gate in card["require"]] == [
        ("relative_to_teacher", True),
        ("gain", False),
        ("parameters", True),
    ]
    missed = f"gain is {card['gain_interval'][0]:.6g} at the lower end of its interval, and >0 is required"
    assert (events[-1].result["accepted"], events[-1].result["not_accepted"]) == (False, [missed])
    rows = card["student"]["test_rows"]
    assert rows == card["data"]["rows"]["test"] == card["data"]["labelled_rows"]["test"]["label"]
    low, high = card["student"]["test_interval"]
    assert low < card["student"]["test_accuracy"] < high
    assert f"of {rows} rows right" in found[of_student]
    in_result = {warning["code"]: warning["message"] for warning in events[-1].result["warnings"]}
    assert in_result == found == {warning["code"]: warning["message"] for warning in card["warnings"]}
    assert (events[-1].result["gain_interval"], events[-1].result["test_rows"]) == (card["gain_interval"], rows)
    model_card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Warnings" in model_card
    assert all(
        words in model_card
        for words in (card["verdict"], found[of_student], f"on {rows} samples)", f": {rows} samples, 95% interval")
    )
    page = (folder / "report.html").read_text(encoding="utf-8")
    of_label = card["student"]["evidence"]["label"]
    low, high = of_label["intervals"]["accuracy"]
    assert low <= card["student"]["test_accuracy"] <= high
    assert sum(map(sum, of_label["confusion"]["counts"])) == sum(each["rows"] for each in of_label["classes"]) == rows
    assert card["verdict"].startswith(("No better than", "Worse than"))
    assert "of a teacher that may be guessing" in card["verdict"]
    assert "<h2>Warnings</h2>" in page
    assert "one run, 95% interval" in page


@pytest.mark.parametrize("targets", [["size"], ["side", "size"]], ids=["a number", "several targets"])
def test_a_student_that_guesses_a_number_is_told_of(tmp_path: Path, targets: list[str]) -> None:
    dataset = two_targets(tmp_path / "data.npz") | {"targets": targets, "test_fraction": 0.5}
    events = run_on_file(spec(dataset, training=NOTHING), tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    found = warnings(events)
    (code,) = {code for code in found if code in {"student_at_chance", "student_below_constant"} and "R² " in found[code]}
    assert ("'size'" in found[code]) == (len(targets) > 1)
    json.dumps(report(tmp_path / "job"), allow_nan=False)


def test_a_student_that_learnt_has_no_warning_and_a_gain_that_is_no_larger_than_shown(tmp_path: Path) -> None:
    learns = {"max_steps": 80, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    document = spec(
        {"source": "builtin:digits"},
        teacher={"architecture": CNN, "training": learns},
        training=learns,
        evaluation={"control": True},
    )
    events = run_on_file(document, tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    assert warnings(events).keys() <= {"control_beats_student", "teacher_worse_than_control"}
    card = report(tmp_path / "job")
    low, high = card["gain_interval"]
    assert low < card["gain"] < high
    assert high - low > 0.01, "359 rows cannot tell less than a point"
