"""Labels of data that take a teacher's classes are numbered by the names."""

import math

import torch

from worker.data import Data, Split
from worker.data.adopted import adopt_classes, may_adopt, relabel_samples, unknown_classes
from worker.targets import Target, Targets

DIGITS = Targets.of_classes([str(digit) for digit in reversed(range(5))])


def data(targets: Targets, labels: torch.Tensor) -> Data:
    split = Split(torch.zeros(len(labels), 1, 2, 2), labels)
    return Data("image-classification", {"train": split, "validation": split, "test": split}, targets)


def test_integers_are_renumbered_in_the_teachers_order() -> None:
    adopted = adopt_classes(
        data(Targets.of_classes(["0", "1", "2"]), torch.tensor([0, 2, -1, 1])), DIGITS, relabel=relabel_samples
    )
    assert adopted.targets.classes == ["4", "3", "2", "1", "0"]
    assert all(split.labels.tolist() == [4, 2, -1, 3] for split in adopted.splits.values())


def test_data_without_labels_have_the_teachers_outputs() -> None:
    bare = data(Targets.of_classes([]), torch.tensor([-1, -1]))
    assert unknown_classes(bare.targets) == ["label"]
    classes = adopt_classes(bare, DIGITS, relabel=relabel_samples)
    assert (classes.targets.classes, classes.splits["test"].labels.tolist()) == (DIGITS.classes, [-1, -1])
    number = adopt_classes(bare, Targets((Target("size", None),)), relabel=relabel_samples)
    assert not number.targets.is_classification
    assert number.splits["test"].labels.shape == (2, 1)
    assert number.splits["test"].labels.isnan().all()


def test_of_several_targets_each_is_renumbered_for_itself() -> None:
    ours = Targets((Target("digit", ("0", "1")), Target("size", None), Target("kind", ())))
    theirs = Targets((Target("kind", ("b", "a")), Target("digit", ("1", "0", "2"))))
    adopted = adopt_classes(
        data(ours, torch.tensor([[0.0, 1.5, math.nan], [math.nan, 2.5, math.nan]])), theirs, relabel=relabel_samples
    )
    assert [target.classes for target in adopted.targets] == [("1", "0", "2"), None, ("b", "a")]
    torch.testing.assert_close(
        adopted.splits["train"].labels,
        torch.tensor([[1.0, 1.5, math.nan], [math.nan, 2.5, math.nan]]),
        equal_nan=True,
    )


def test_names_and_numbers_need_no_teacher() -> None:
    assert not may_adopt(Targets((Target("a", ("x", "y")), Target("b", None))))
    assert may_adopt(Targets.of_classes(["0", "1"]))
    named = data(Targets.of_classes(["cat", "dog"]), torch.tensor([0, 1]))
    assert adopt_classes(named, Targets.of_classes(["dog", "cat", "emu"]), relabel=relabel_samples) is named
