"""Which samples of a training split are held out: stratified, and for ever the same by labels, fractions and seed."""

import numpy as np
from numpy.typing import NDArray

from worker.data.errors import UnusableData


def hold_out(
    labels: NDArray[np.int64], *, validation_fraction: float | None, test_fraction: float | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Row numbers, ascending, of ``train`` and of each part whose fraction is given.

    Of each class, every part gets its fraction, rounded, and one sample at least. A split that a seed once gave is part of what a
    job's result means, so the generator is NumPy's ``RandomState``, whose stream is frozen.

    Raises:
        UnusableData: a class has fewer samples than there are parts.
    """
    fractions = {"test": test_fraction, "validation": validation_fraction}
    wanted = {part: fraction for part, fraction in fractions.items() if fraction is not None}
    chosen: dict[str, list[NDArray[np.int64]]] = {part: [] for part in ("train", *wanted)}
    random = np.random.RandomState(seed)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) <= len(wanted):
            raise UnusableData(
                f"class {label} has {len(rows)} samples to train on, and {len(wanted) + 1} are needed: one for train"
                f"{''.join(f', one for {part}' for part in wanted)}. Add samples, or give the dataset splits of its own"
            )
        random.shuffle(rows)
        total = len(rows)
        for index, (part, fraction) in enumerate(wanted.items()):
            still_to_come = len(wanted) - index  # one sample for train and for each part after this
            count = min(max(1, round(total * fraction)), len(rows) - still_to_come)
            chosen[part].append(rows[:count])
            rows = rows[count:]
        chosen["train"].append(rows)
    return {part: np.sort(np.concatenate(rows)) for part, rows in chosen.items()}
