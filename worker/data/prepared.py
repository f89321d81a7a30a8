"""What tokenizers made of a split's texts, kept for the networks that read them later."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from worker.data.disk.mapped_rows import MappedRows
from worker.data.tensors import SplitInputs, num_bytes

MOST_BYTES = 512 * 2**20
"""Of one split; what is larger is made again for each phase, as the token ids of several networks might not fit into memory."""
_MOST_ENTRIES = 8


@dataclass(frozen=True)
class Losses:
    """What of a split's texts a network does not read: each a count, and the number of the first sample."""

    texts: tuple[int, int] = (0, 0)
    """Texts, answers, and of pairs the first texts, that are cut."""
    second_texts: tuple[int, int] = (0, 0)
    """Of pairs, the second texts that are cut."""
    prompts: tuple[int, int] = (0, 0)
    """Prompts that lose their beginning."""
    turns: tuple[int, int] = (0, 0)
    """Chats that lose their oldest turns."""
    markup: tuple[int, int] = (0, 0)
    """Chats in which a message holds the name of a special token."""
    tokens: tuple[int, int] = (0, 0)
    """Tokens of an incomplete last row, and all tokens."""


NO_LOSSES = Losses()


class ReadSplit(NamedTuple):
    """A split as a network reads it."""

    inputs: SplitInputs
    """(N, …), prepared; of a causal language model rows (N, L)."""
    labels: Tensor
    """(N,) or (N, M); of a causal language model the rows' loss mask (N, L)."""
    losses: Losses = NO_LOSSES
    """What of the texts the network does not read."""
    mask: MappedRows | None = None
    """The loss mask (N, L) of rows on disk, whose labels are (N, 0)."""


class Prepared(NamedTuple):
    """What a tokenizer made of a split's texts."""

    inputs: SplitInputs
    losses: Losses
    mask: Tensor | MappedRows | None = None
    """The loss mask of a causal language model's rows."""

    @property
    def num_bytes(self) -> int:
        """Size of all tensors in memory."""
        return num_bytes(self.inputs) + (0 if self.mask is None else num_bytes(self.mask))


class _Entry(NamedTuple):
    sources: tuple[Any, ...]
    settings: Any
    made: Prepared


class PreparedSamples:
    """Tensors by what they were made from.

    An entry counts for the same objects alone (the list of texts, the tokenizer), so that nothing is compared at length.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def find(self, sources: tuple[Any, ...], settings: Any) -> Prepared | None:
        """The tensors that were made from these objects with equal settings; None if they were not kept."""
        for entry in self._entries:
            if entry.settings == settings and all(one is other for one, other in zip(entry.sources, sources, strict=True)):
                return entry.made
        return None

    def keep(self, sources: tuple[Any, ...], settings: Any, made: Prepared) -> None:
        """Keeps the tensors, unless they are too large; the oldest ones go."""
        held = sum(entry.made.num_bytes for entry in self._entries)
        if held + made.num_bytes <= MOST_BYTES:
            self._entries = [*self._entries, _Entry(sources, settings, made)][-_MOST_ENTRIES:]
