"""The verdict says what was shown, with what it was measured on, and no more."""

from typing import Any

import pytest

from service.api.examples import REPORT
from service.spec.report import Report
from service.spec.verdict import verdict

ALONE = "the same student trained alone"


def told(**changes: Any) -> str:
    return verdict(REPORT | changes)


def test_one_run_is_told_with_its_interval_and_its_rows() -> None:
    assert told() == (
        "1/57 of the teacher's parameters, 3.7 times faster at batch 1, 2.50 points below the teacher (one run, 95% interval "
        "-4.36 to -0.64, 359 samples)"
    )
    gained = told(gain=0.0111, gain_interval=[0.001, 0.0212])
    assert gained.endswith(f", 1.11 points above {ALONE} (one run, 95% interval +0.10 to +2.12, 359 samples)")


def test_of_several_seeds_the_mean_and_its_interval_are_the_headline() -> None:
    interval = {"mean": 0.955, "half_width": 0.01, "values": [0.95, 0.95, 0.965]}
    seeds = {"seeds": [0, 1, 2], "student": interval, "control": interval, "gain": None}
    text = told(gain=0.013, gain_interval=[0.009, 0.017], gain_seeds=3, seeds=seeds, over_teacher_interval=[-0.035, -0.015])
    assert "2.50 ± 1.00 points below the teacher (mean of 3 seeds), 1.30 ± 0.40 points above" in text
    unshown = told(gain=-0.014, gain_interval=[-0.134, 0.106], gain_seeds=3)
    assert f"no difference shown from {ALONE} (-1.40 points: mean of 3 seeds, 95% interval -13.40 to +10.60)" in unshown


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_that_holds_0_shows_no_difference_on_either_side(sign: int) -> None:
    text = told(gain=0.01 * sign, gain_interval=[-0.02, 0.02], over_teacher=0.01 * sign, over_teacher_interval=[-0.02, 0.02])
    assert text.count("no difference shown from") == 2
    assert "above" not in text.replace("below", "above")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("student_at_chance", "No better than a constant guess, 1/57"),
        ("student_below_constant", "Worse than a constant guess, 1/57"),
        ("teacher_at_chance", "Of a teacher that may be guessing, 1/57"),
        ("control_at_chance", "Beside a control that may be guessing, 1/57"),
        ("split_unused", "1/57"),
    ],
)
def test_a_network_that_guesses_is_told_first(code: str, words: str) -> None:
    assert told(warnings=[{"code": code, "message": "…"}]).startswith(words)


def test_sizes_and_speeds_are_told_as_they_compare() -> None:
    def compared(parameters: float, latency: float) -> str:
        ratios = {**REPORT["compression"], "parameters": parameters, "latency_batch_1": latency}
        return told(compression=ratios, over_teacher=None, agreement=None)

    assert compared(3.5, 0.5) == "29% of the teacher's parameters, 2.0 times slower at batch 1"
    assert compared(1.0, 1.01) == "As many parameters as the teacher, as fast at batch 1"
    assert compared(0.5, 1.2) == "2.0 times the teacher's parameters, 1.2 times faster at batch 1"


def test_without_labels_the_agreement_is_told_in_its_own_unit() -> None:
    assert told(over_teacher=None).endswith("agreeing with the teacher on 96.10% of the test split")
    numbers = {"data": REPORT["data"] | {"targets": {"year": None}}, "student": REPORT["student"] | {"test_accuracy": None}}
    assert told(over_teacher=None, **numbers).endswith("agreeing with the teacher to 0.9610")
    assert "0.0250 below the teacher (one run, 95% interval -0.0436 to -0.0064, 359 samples)" in told(**numbers)


def test_language_models_are_told_by_their_perplexity_too() -> None:
    def network(role: str, perplexity: float) -> dict[str, Any]:
        return {**REPORT[role], "metrics": {"next token": {"perplexity": perplexity}}}

    text = told(task="causal-lm", teacher=network("teacher", 8.25), student=network("student", 9.5))
    assert "perplexity 9.50 beside the teacher's 8.25, 2.50 points below the teacher" in text
    assert "359 tokens" in text


def test_a_report_of_before_gets_one() -> None:
    later = ("verdict", "over_teacher", "over_teacher_interval")
    earlier = {name: value for name, value in REPORT.items() if name not in later}
    assert Report.model_validate(earlier).verdict == (
        "1/57 of the teacher's parameters, 3.7 times faster at batch 1, agreeing with the teacher on 96.10% of the test split"
    )
