"""``builtin:digits``: 1,797 scanned digits of 8x8 pixels with 17 grey values (Alpaydin & Kaynak, 1998), from scikit-learn.

Its targets are the digit and its parity. Its splits are fixed, so that the results of all jobs on it can be compared.
"""

from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.formats import DataArrays, SplitArrays
from worker.data.held_out import hold_out

MAX_PIXEL = 16
_SPLIT_SEED = 0


def load_digits() -> DataArrays:
    """Loads the digits as uint8 (N, 1, 8, 8) with values from 0 to 16, in stratified splits of 70, 10 and 20 percent."""
    images, labels = read_digits()
    parts = hold_out(labels, validation_fraction=0.1, test_fraction=0.2, seed=_SPLIT_SEED)
    targets = {"label": labels, "parity": labels % 2}
    splits = {
        name: SplitArrays(inputs=images[rows], targets={column: values[rows] for column, values in targets.items()})
        for name, rows in parts.items()
    }
    return DataArrays(splits=splits, classes={"label": [str(digit) for digit in range(10)], "parity": ["even", "odd"]})


@cache
def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Reads images (N, 1, 8, 8) and labels (N,), which nobody may write to: parsing them takes longer than a step on them."""
    # scikit-learn takes most of a second to import, which jobs on other data need not wait for.
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = cast(NDArray[np.float64], bunch.images).astype(np.uint8)[:, None]
    labels = cast(NDArray[np.int64], bunch.target).astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels
