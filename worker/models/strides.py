"""Strides for images that are smaller than those a network was made for.

Invariant: the last stage sees at least two pixels a side, which batch norm can still normalise when a batch holds one sample.
"""

from collections.abc import Sequence


def fitting_strides(strides: Sequence[int], *, pixels: int) -> list[int]:
    """The network's strides (each 1 or 2) for images whose smaller side has ``pixels`` (2 and more), each halving rounded up.

    Where there are more halvings than the image has room for, the first ones become 1: a small image then meets the later
    stages, where most weights are, at the size that they were made for.
    """
    room = (pixels - 1).bit_length() - 1
    spare = strides.count(2) - room
    fitting = []
    for stride in strides:
        left_out = stride == 2 and spare > 0
        spare -= left_out
        fitting.append(1 if left_out else stride)
    return fitting
