"""What the names of a dataset's splits mean where the spec names none.

Invariant: at upload, at submission and in training the same names give the same parts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["train", "validation", "test"]

NAMES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""The names of each part, in any case; of several in one dataset the first is taken. ``eval`` is none of them: some call their
validation split so, others their test split."""
OTHER_NAMES = ("eval", "evaluation", "extra", "holdout", "unlabeled", "unlabelled", "unsupervised")
"""Names that mean splits and no classes, and no part by default."""


@dataclass(frozen=True)
class SplitRoles:
    """The splits of a dataset by their meaning."""

    train: str | None
    validation: str | None
    test: str | None
    unused: tuple[str, ...]
    """The splits that take no part by default."""


def split_roles(splits: Iterable[str]) -> SplitRoles:
    """Finds the split of each part by its name."""
    splits = list(splits)
    found: dict[Role, str | None] = {}
    for role, names in NAMES.items():
        candidates = [split for split in splits if split.lower() in names]
        # As written in the table comes first: of 'test' and 'Test' the former.
        candidates.sort(key=lambda split: (names.index(split.lower()), split != split.lower()))
        found[role] = candidates[0] if candidates else None
    unused = tuple(split for split in splits if split not in found.values())
    return SplitRoles(found["train"], found["validation"], found["test"], unused)


def is_split_name(name: str) -> bool:
    """Whether a folder of this name is a split rather than a class."""
    return name.lower() in OTHER_NAMES or any(name.lower() in names for names in NAMES.values())
