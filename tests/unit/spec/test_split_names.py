"""What the names of splits mean where a spec names none."""

import pytest

from service.spec.data import DatasetSpec, Splits
from service.spec.data_fit import chosen_splits
from service.spec.split_names import is_split_name, split_roles


@pytest.mark.parametrize(
    ("available", "train", "validation", "test"),
    [
        (["train"], "train", None, None),
        (["train", "validation", "test"], "train", "validation", "test"),
        (["train", "val"], "train", "val", None),
        (["train", "valid", "test"], "train", "valid", "test"),
        (["train", "dev"], "train", "dev", None),
        (["Train", "VAL", "Test"], "Train", "VAL", "Test"),
        (["Training", "Testing"], "Training", None, "Testing"),
        (["test", "train", "Train"], "train", None, "test"),
    ],
)
def test_splits_are_used_by_what_their_names_mean(
    available: list[str], train: str, validation: str | None, test: str | None
) -> None:
    chosen = chosen_splits(DatasetSpec(source="builtin:digits"), available)
    assert chosen == Splits(train=train, validation=validation, test=test)
    assert split_roles(available).unused == tuple(name for name in available if name not in (train, validation, test))


def test_of_two_splits_for_one_part_the_other_takes_no_part() -> None:
    roles = split_roles(["dev", "val", "train", "eval", "test"])
    assert (roles.validation, roles.unused) == ("val", ("dev", "eval"))


def test_splits_that_the_spec_names_are_used_as_named() -> None:
    named = Splits(train="train", test="val")
    assert chosen_splits(DatasetSpec(source="builtin:digits", splits=named), ["train", "val", "test"]) == named


@pytest.mark.parametrize(("name", "is_split"), [("Valid", True), ("unlabeled", True), ("eval", True), ("cat", False)])
def test_a_folder_may_be_a_split_by_its_name(name: str, is_split: bool) -> None:
    assert is_split_name(name) is is_split
