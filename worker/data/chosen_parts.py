"""Which rows are for training, validation and test: the dataset's own splits, else what ``split_seed`` holds out of training."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.formats import DataArrays, SplitArrays
from service.spec.data import DatasetSpec
from service.spec.data_fit import chosen_splits
from worker.data.errors import UnusableData
from worker.data.held_out import hold_out, hold_out_labels, most_probable
from worker.data.preprocessing import take
from worker.data.split import SplitName

_MOST_UNLABELLED = 2
"""Up to this many samples without a label are too few for a stratum of their own: it needs one in each of three parts."""


def choose_parts(dataset: DatasetSpec, arrays: DataArrays, *, without_labels: Collection[str]) -> dict[SplitName, SplitArrays]:
    names = chosen_splits(dataset, list(arrays.splits))
    own: dict[SplitName, str | None] = {"train": names.train, "validation": names.validation, "test": names.test}
    for part, name in own.items():
        if name is not None and name not in arrays.splits:
            there = ", ".join(map(repr, arrays.splits))
            raise UnusableData(f"the dataset has no split {name!r} to be the {part} split; it has {there}")
    train = arrays.splits[names.train]
    needed = 1 + sum(name is None for name in own.values())
    parts: Any = {
        "validation_fraction": None if names.validation is not None else dataset.validation_fraction,
        "test_fraction": None if names.test is not None else dataset.test_fraction,
        "seed": dataset.split_seed,
    }
    if (labels := _several_labels(dataset, arrays, train)) is not None:
        rows = hold_out_labels(labels, **parts)
    else:
        rows = hold_out(_strata(dataset, arrays, train, needed=needed, without_labels=without_labels), **parts)
    if len(rows) == 1:
        rows = {}
    chosen: dict[SplitName, SplitArrays] = {}
    for part, name in own.items():
        if part in rows:
            chosen[part] = _rows(train, rows[part])
        elif name is not None:
            chosen[part] = arrays.splits[name]
    return chosen


def _several_labels(dataset: DatasetSpec, arrays: DataArrays, train: SplitArrays) -> NDArray[np.bool_] | None:
    """The labels (N, C) of the first target that has classes, if a row may have any of them; none where they are missing."""
    for name in dataset.targets:
        if arrays.classes[name] is not None:
            return np.asarray(train.targets[name]) > 0 if arrays.label_kinds.get(name) == "labels" else None
    return None


def _strata(
    dataset: DatasetSpec, arrays: DataArrays, train: SplitArrays, *, needed: int, without_labels: Collection[str]
) -> NDArray[np.int64]:
    """Strata (N,) of the held-out shares: the classes of the first target that has classes, else a single stratum.

    Of probabilities the class is the most probable one. Of them, and of a target that can be learned without labels, classes
    of fewer than ``needed`` rows are one stratum with the unlabelled.
    """
    for name in dataset.targets:
        values = train.targets[name]
        if arrays.classes[name] is not None and isinstance(values, np.ndarray):
            is_soft = arrays.label_kinds.get(name) == "probabilities"
            strata = most_probable(values) if is_soft else values.astype(np.int64)
            if name in without_labels or is_soft:
                rare = np.flatnonzero(np.bincount(strata[strata >= 0]) < needed)
                strata = np.where(np.isin(strata, rare), -1, strata)
            counts = np.bincount(strata[strata >= 0])
            if len(counts) and len(strata) - counts.sum() <= _MOST_UNLABELLED:
                strata = np.where(strata >= 0, strata, counts.argmax())
            return strata
    return np.zeros(len(train.inputs), dtype=np.int64)


def _rows(split: SplitArrays, rows: NDArray[np.int64]) -> SplitArrays:
    return SplitArrays(
        inputs=take(split.inputs, rows),
        targets={name: take(values, rows) for name, values in split.targets.items()},
        places=None if split.places is None else split.places[rows],
    )
