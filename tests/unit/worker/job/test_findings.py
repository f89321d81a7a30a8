"""What is said of a teacher beside the control: where it is shown to be worse, and whether fine-tuning would be a remedy."""

import pytest

from worker.evaluation.evidence import Interval
from worker.job.findings import teacher_findings


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
