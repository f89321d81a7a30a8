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
