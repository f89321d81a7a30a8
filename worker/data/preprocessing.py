"""Preprocessing: from stored samples to a network's input. Images are read by ``pixels``, clips by ``sound``, texts by ``text``,
the texts of a causal language model by ``language_preprocessing``.

Invariant: what a preprocessing knows was measured or trained on the training split alone, and travels with the network that was
trained behind it. N samples, B batch.
"""

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.spec.shapes import InputShape

RawInputs = Any
"""Samples as the data hold them: images (N, C, H, W), a list of N texts, or a list of N waveforms."""


class Preprocessing(Protocol):
    """From stored samples to what one network reads, in two parts: once for a split, then for each batch."""

    on_host: ClassVar[bool]
    """Whether a batch is mapped before it goes to the device."""
    keeps_size: ClassVar[bool]
    """Whether a whole split may be mapped at once; False where it depends on the batch."""

    def prepare(self, inputs: RawInputs) -> Tensor:
        """A split's samples as one tensor (N, …), on the CPU."""

    def __call__(self, stored: Tensor) -> Tensor:
        """A batch (B, …) of what :meth:`prepare` gave, as the network reads it."""

    def input_shape(self, inputs: RawInputs) -> InputShape:
        """Of one sample, when these are the samples."""


def first(inputs: RawInputs, count: int) -> RawInputs:
    """The first samples."""
    return inputs[:count]


def take(inputs: RawInputs, rows: NDArray[np.int64]) -> RawInputs:
    """The samples of these rows."""
    return [inputs[row] for row in rows] if isinstance(inputs, list) else inputs[rows]
