"""Where a student differs most from its teacher: by divergence, once for each row, in words."""

import pytest
import torch
from torch.nn import functional

from worker.evaluation.disagreement import largest_disagreements
from worker.targets import Target, Targets

LABEL = Target("label", ("cat", "dog", "owl"))
YEAR = Target("year", None, mean=2000.0, scale=10.0)


def test_rows_of_other_answers_are_found_by_their_divergence() -> None:
    teacher, student = (torch.randn(200, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    student[::2] = teacher[::2] / 9  # the same answer, far less sure
    labels = torch.arange(200) % 3
    labels[1] = -1
    found = largest_disagreements(teacher, student, labels, Targets((LABEL,)), count=12)
    apart = functional.kl_div(student.double().log_softmax(1), teacher.double().softmax(1), reduction="none").sum(1)
    apart[teacher.argmax(1) == student.argmax(1)] = 0
    assert [each.row for each in found] == apart.topk(12).indices.tolist()
    assert [each.distance for each in found] == pytest.approx(apart.topk(12).values.tolist())
    first = found[0]
    probability, index = teacher[first.row].double().softmax(0).max(0)
    assert first.teacher == f"{('cat', 'dog', 'owl')[int(index)]} ({probability:.0%})"
    assert first.label == (None if first.row == 1 else ("cat", "dog", "owl")[first.row % 3])


def test_of_several_targets_each_row_is_told_once_and_numbers_in_their_own_unit() -> None:
    teacher = torch.tensor([[9.0, 0.0, 0.0, 0.5], [0.0, 9.0, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0]])
    student = torch.tensor([[0.0, 9.0, 0.0, 1.5], [0.0, 9.0, 0.0, 0.2], [0.0, 9.0, 0.0, 0.0]])
    labels = torch.tensor([[0.0, 0.5], [1.0, torch.nan], [1.0, 0.0]])
    first, second = largest_disagreements(teacher, student, labels, Targets((LABEL, YEAR)), count=12)
    assert (first.row, first.target, first.label, first.student) == (0, "label", "cat", "dog (100%)")
    assert (second.row, second.target, second.label, second.teacher, second.student) == (1, "year", None, "2000", "2002")
    (only,) = largest_disagreements(teacher, student, labels, Targets((LABEL, YEAR)), count=1, only=["year"])
    assert (only.row, only.label, only.teacher, only.student) == (0, "2005", "2005", "2015")


def test_classes_that_do_not_exclude_each_other_are_told_together() -> None:
    target = Target("tags", ("a", "b"), label_kind="labels")
    teacher, student = torch.tensor([[3.0, 2.0], [1.0, -1.0]]), torch.tensor([[-3.0, -2.0], [1.0, -1.0]])
    (found,) = largest_disagreements(teacher, student, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), Targets((target,)), count=12)
    assert (found.row, found.label, found.teacher, found.student) == (0, "a", "a, b", "none")
