"""The interface of preprocessing, from stored samples to a network's input. N samples, B batch.

Its implementations are in ``pixels`` and ``processor_pixels`` (images), ``sound`` (clips), ``text`` (texts) and
``language_preprocessing`` (texts for a causal language model). Invariant: the parameters of a preprocessing are measured or
trained on the training split alone, and are saved with the network that was trained behind it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from service.spec.shapes import InputShape
from service.spec.warning_message import WarningMessage
from worker.data.disk.stored import StoredInputs
from worker.data.prepared import Losses, ReadSplit
from worker.data.tensors import Inputs

if TYPE_CHECKING:
    from worker.data.split import Split

RawInputs = Any
"""Stored samples: images (N, C, H, W), a list of N texts, or a list of N waveforms; or :class:`StoredInputs` of any of them."""


class Preprocessing(ABC):
    """Maps stored samples to the inputs of one network in two steps: once for a split, then for each batch."""

    on_host: ClassVar[bool] = False
    """Whether a batch is mapped on the CPU, before it is copied to the device."""
    keeps_size: ClassVar[bool] = True
    """Whether a whole split may be mapped at once; False if the shape of an input depends on its batch."""

    @abstractmethod
    def prepare(self, inputs: RawInputs) -> Inputs:
        """Converts samples to tensors (N, …) on the CPU."""

    @abstractmethod
    def __call__(self, stored: Any) -> Inputs:
        """Maps a batch (B, …) of prepared samples, in the form of :meth:`prepare`, to the network's inputs."""

    @abstractmethod
    def input_shape(self, inputs: RawInputs) -> InputShape:
        """Shape of a network input for one sample of ``inputs``."""

    @abstractmethod
    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        """Writes the files from which a network's library, or this project, computes its inputs, of ``input_shape``.

        ``has_token_types``: whether the network reads the token types of a tokenizer.
        """

    def with_vocabulary(self, size: int) -> "Preprocessing":
        """The same for a network of ``size`` tokens, more than the tokenizer has; itself if it reads no texts."""
        return self

    def read(self, split: "Split") -> ReadSplit:
        """Prepares a split's samples, with the labels that the network learns. Images and sound on disk stay there.

        Raises:
            UnusableData: a sample, or the split, cannot be read by this network; the message names the split, the row and the
                line.
        """
        is_read_later = isinstance(split.inputs, StoredInputs) and self.own_tokenizer is None
        return ReadSplit(split.inputs if is_read_later else self.prepare(split.inputs), split.labels)

    def describe_losses(self, losses: Losses, split: "Split", *, readers: str) -> Iterator[WarningMessage]:
        """Tells what of a split's samples is not read, and the remedy; ``readers`` names the networks."""
        yield from ()

    @property
    def parameters(self) -> str:
        """Everything that its outputs depend on, for the key of cached teacher outputs."""
        return repr(self)

    @property
    def own_tokenizer(self) -> Any | None:
        """The network's tokenizer; None if it reads no texts."""
        return None

    @property
    def rate(self) -> int | None:
        """Samples of sound per second; None if it reads none."""
        return None

    @property
    def reads_spectrograms(self) -> bool:
        """Whether the network's inputs are spectrograms (B, 1, F, M)."""
        return False


def same_tokens(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both make the same tokens of a text; True if either reads no texts."""
    if one is other or one.own_tokenizer is None or other.own_tokenizer is None:
        return True
    return one.parameters == other.parameters


def first(inputs: RawInputs, count: int) -> RawInputs:
    """Returns the first ``count`` samples, in memory."""
    return inputs[:count].read() if isinstance(inputs, StoredInputs) else inputs[:count]


def take(inputs: RawInputs, rows: NDArray[np.int64]) -> RawInputs:
    """Returns the samples at ``rows``."""
    return [inputs[row] for row in rows] if isinstance(inputs, list) else inputs[rows]
