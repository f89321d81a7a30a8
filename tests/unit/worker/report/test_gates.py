"""A gate is held by what was measured, and by nothing else."""

from typing import Any

import pytest

from service.api.examples import REPORT
from service.spec.report import GateCard, Report
from service.spec.require import RequireSpec
from worker.report.gates import check_gates


def checked(require: dict[str, Any], **changes: Any) -> GateCard:
    (card,) = check_gates(RequireSpec.model_validate(require), Report.model_validate(REPORT | changes))
    return card


@pytest.mark.parametrize(
    ("require", "measured", "held"),
    [
        ({"score": 0.955}, 0.955, True),
        ({"score": ">0.955"}, 0.955, False),
        ({"relative_to_teacher": 0.97}, 0.955 / 0.98, True),
        ({"agreement": 0.97}, 0.961, False),
        ({"latency_ms": "<0.11"}, 0.11, False),
        ({"parameters": 3682}, 3682, True),
        ({"bytes": "<16256"}, 16256, False),
    ],
)
def test_each_figure_is_compared(require: dict[str, Any], measured: float, held: bool) -> None:
    card = checked(require)
    assert card.measured == pytest.approx(measured)
    assert card.held is held


@pytest.mark.parametrize(("low", "held"), [(0.001, True), (-0.001, False)])
def test_a_gain_is_held_by_the_lower_end_of_its_interval(low: float, held: bool) -> None:
    card = checked({"gain": ">0"}, gain=0.02, gain_interval=[low, 0.05])
    assert (card.measured, card.held) == (low, held)


def test_over_several_seeds_the_mean_score_counts() -> None:
    interval = {"mean": 0.9, "half_width": 0.01, "values": [0.89, 0.91]}
    seeds = {"seeds": [0, 1], "student": interval, "control": None, "gain": None}
    assert checked({"score": 0.95}, seeds=seeds).measured == 0.9


@pytest.mark.parametrize(
    ("require", "changes", "words"),
    [
        ({"gain": "> -1"}, {}, "was not measured"),
        ({"gain": "> -1"}, {"gain": 0.02}, "has no interval"),
        ({"relative_to_teacher": 0}, {"over_teacher": None}, "no labels compare"),
        ({"relative_to_teacher": 0}, {"teacher": REPORT["teacher"] | {"test_score": -0.1}}, "has no meaning"),
        ({"score": 0}, {"student": REPORT["student"] | {"test_score": None}}, "has no labels"),
        ({"agreement": 0}, {"agreement": None}, "two tokenizers"),
    ],
)
def test_what_was_not_measured_holds_no_gate(require: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    card = checked(require, **changes)
    assert (card.measured, card.held) == (None, False)
    assert words in card.message
