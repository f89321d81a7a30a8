"""What is said of a teacher beside the control, where it is shown to be worse, and of a control that learnt nothing."""

from typing import Literal

import pytest

from worker.evaluation.evidence import ClassComparison, Interval, wilson_interval
from worker.job.findings import reference_findings, teacher_findings


@pytest.mark.parametrize("difference", [None, (-0.02, 0.01), (0.01, 0.05)])
def test_nothing_is_said_of_a_teacher_that_is_not_shown_to_be_worse(difference: Interval | None) -> None:
    assert not list(teacher_findings(difference, teacher=0.8, control=0.81, untuned=["model:a"]))


def test_a_teacher_that_is_worse_is_told_to_be_trained_longer_or_else_to_be_tuned() -> None:
    (trained,) = teacher_findings((-0.2, -0.1), teacher=0.65, control=0.8, untuned=[])
    (given,) = teacher_findings((-0.2, -0.1), teacher=0.65, control=0.8, untuned=["model:a", "hub:anna/b@0123"])
    assert (trained.code, given.code) == ("teacher_worse_than_control", "teacher_untuned")
    assert all("0.6500, is below that of the control, 0.8000" in " ".join(each.message.split()) for each in (trained, given))
    assert "Train it for longer" in trained.message
    assert given.message.startswith("The teacher model:a + hub:anna/b@0123 was not fine-tuned on these data")
    assert "Give it a training" in given.message


@pytest.mark.parametrize("role", ["teacher", "control"])
@pytest.mark.parametrize(
    ("right", "rows", "code", "words"),
    [
        (12, 24, "not_shown_better", "measure it on more test rows"),
        (120, 240, "at_chance", "train it for longer"),
        (40, 240, "at_chance", "train it for longer"),
        (180, 240, None, ""),
    ],
)
def test_what_the_student_is_compared_with_is_told_of_where_it_may_guess(
    role: Literal["teacher", "control"], right: int, rows: int, code: str | None, words: str
) -> None:
    compared = ClassComparison("label", right / rows, wilson_interval(right / rows, rows), constant=0.5, rows=rows)
    found = list(reference_findings(role, [compared]))
    assert [each.code for each in found] == ([] if code is None else [f"{role}_{code}"])
    assert all(words in each.message and f"of {rows} rows right" in each.message for each in found)
