"""Strides for images that are smaller than those that a network was designed for.

Invariant: the last stage has at least two pixels per side, so that batch norm can normalise even a batch of one sample.
"""

from collections.abc import Sequence


def fitting_strides(strides: Sequence[int], *, pixels: int) -> list[int]:
    """Reduces strides (each 1 or 2) for images whose smaller side has ``pixels`` (2 or more); each halving rounds up.

    If the image is too small for all halvings, the first ones become 1, so that the later stages, where most weights are, work at
    the size that they were designed for.
    """
    most_halvings = (pixels - 1).bit_length() - 1
    spare = strides.count(2) - most_halvings
    fitting = []
    for stride in strides:
        is_dropped = stride == 2 and spare > 0
        spare -= is_dropped
        fitting.append(1 if is_dropped else stride)
    return fitting
