"""The interface of preprocessing, from stored samples to a network's input. N samples, B batch.

Its implementations are in ``pixels`` (images), ``sound`` (clips), ``text`` (texts) and ``language_preprocessing`` (texts for a
causal language model). Invariant: the parameters of a preprocessing are measured or trained on the training split alone, and are
saved with the network that was trained behind it.
"""

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from service.spec.shapes import InputShape
from worker.data.tensors import Inputs

RawInputs = Any
"""Stored samples: images (N, C, H, W), a list of N texts, or a list of N waveforms."""


class Preprocessing(Protocol):
    """Maps stored samples to the inputs of one network in two steps: once for a split, then for each batch."""

    on_host: ClassVar[bool]
    """Whether a batch is mapped on the CPU, before it is copied to the device."""
    keeps_size: ClassVar[bool]
    """Whether a whole split may be mapped at once; False if the shape of an input depends on its batch."""

    def prepare(self, inputs: RawInputs) -> Inputs:
        """Converts a split's samples to tensors (N, …) on the CPU."""

    def __call__(self, stored: Any) -> Inputs:
        """Maps a batch (B, …) of prepared samples, in the form of :meth:`prepare`, to the network's inputs."""

    def input_shape(self, inputs: RawInputs) -> InputShape:
        """Shape of a network input for one sample of ``inputs``."""


def first(inputs: RawInputs, count: int) -> RawInputs:
    """Returns the first ``count`` samples."""
    return inputs[:count]


def take(inputs: RawInputs, rows: NDArray[np.int64]) -> RawInputs:
    """Returns the samples at ``rows``."""
    return [inputs[row] for row in rows] if isinstance(inputs, list) else inputs[rows]
