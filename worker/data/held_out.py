"""Stratified held-out splits, determined by labels, fractions and seed and the same in every release."""

import numpy as np
from numpy.typing import NDArray

from worker.data.errors import UnusableData


def hold_out(
    labels: NDArray[np.int64], *, validation_fraction: float | None, test_fraction: float | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Draws row numbers, ascending, for ``train`` and for each part whose fraction is given.

    Every part gets its fraction of each class, rounded, and at least one sample. Results are comparable only on the same split,
    so the generator is NumPy's ``RandomState``, whose stream is frozen.

    Raises:
        UnusableData: a class has fewer samples than there are parts.
    """
    fractions = {"test": test_fraction, "validation": validation_fraction}
    held_out = {part: fraction for part, fraction in fractions.items() if fraction is not None}
    chosen: dict[str, list[NDArray[np.int64]]] = {part: [] for part in ("train", *held_out)}
    random = np.random.RandomState(seed)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) <= len(held_out):
            raise UnusableData(
                f"class {label} has {len(rows)} samples to train on, and {len(held_out) + 1} are needed: one for train"
                f"{''.join(f', one for {part}' for part in held_out)}. Add samples, or give the dataset splits of its own"
            )
        random.shuffle(rows)
        total = len(rows)
        for index, (part, fraction) in enumerate(held_out.items()):
            still_to_come = len(held_out) - index  # one sample for train and for each part after this
            count = min(max(1, round(total * fraction)), len(rows) - still_to_come)
            chosen[part].append(rows[:count])
            rows = rows[count:]
        chosen["train"].append(rows)
    return {part: np.sort(np.concatenate(rows)) for part, rows in chosen.items()}


def hold_out_labels(
    labels: NDArray[np.bool_], *, validation_fraction: float | None, test_fraction: float | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Draws row numbers as :func:`hold_out` does, of rows that have any of the classes (N, C).

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas, 2011): rows of the rarest class go first, each to the part that lacks
    most of it. A class that has a row for each part wants one at least in each; one that has not is in some parts alone.

    Raises:
        UnusableData: there are fewer rows than parts.
    """
    fractions = {"test": test_fraction, "validation": validation_fraction}
    held_out = {part: fraction for part, fraction in fractions.items() if fraction is not None}
    if len(labels) <= len(held_out):
        raise UnusableData(f"{len(labels)} rows are too few to be cut into train, {' and '.join(held_out)}: add samples")
    shares = np.array(list(held_out.values()))[:, None]
    columns = np.column_stack([labels, np.ones(len(labels), dtype=np.bool_)])  # last, every row is to be in some part
    counts = columns.sum(axis=0)
    of_held_out = np.maximum(shares * counts, counts > len(held_out))
    wanted = np.concatenate([[counts - of_held_out.sum(axis=0)], of_held_out])
    part_of, remaining = np.full(len(labels), -1), counts.copy()
    random = np.random.RandomState(seed)
    while remaining[-1]:
        label = int(np.where(remaining > 0, remaining, len(labels) + 1).argmin())
        rows = np.flatnonzero(columns[:, label] & (part_of < 0))
        random.shuffle(rows)
        for row in rows:
            most = np.flatnonzero(wanted[:, label] == wanted[:, label].max())
            part = most[wanted[most, -1].argmax()]
            part_of[row] = part
            wanted[part] -= columns[row]
            remaining -= columns[row]
    return {part: np.flatnonzero(part_of == index) for index, part in enumerate(("train", *held_out))}


def most_probable(probabilities: NDArray[np.generic]) -> NDArray[np.int64]:
    """The most probable class of each row (N, C), -1 where there is no label."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.where(np.isnan(values).any(axis=1), -1, np.nan_to_num(values).argmax(axis=1))
