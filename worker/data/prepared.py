"""What tokenizers made of a split's texts, kept for the networks that read them later."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

MOST_BYTES = 512 * 2**20
"""Of one split; what is larger is made again for each phase, as the token ids of several networks might not fit into memory."""
_MOST_ENTRIES = 8


@dataclass(frozen=True)
class Losses:
    """What of a split's texts a network does not read: each a count, and the number of the first sample."""

    texts: tuple[int, int] = (0, 0)
    """Texts, and answers, that are cut."""
    prompts: tuple[int, int] = (0, 0)
    """Prompts that lose their beginning."""
    tokens: tuple[int, int] = (0, 0)
    """Tokens of an incomplete last row, and all tokens."""


NO_LOSSES = Losses()


class Prepared(NamedTuple):
    """A split as a tokenizer made it."""

    tensors: tuple[Tensor, ...]
    losses: Losses


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
        held = sum(tensor.nbytes for entry in self._entries for tensor in entry.made.tensors)
        if held + sum(tensor.nbytes for tensor in made.tensors) <= MOST_BYTES:
            self._entries = [*self._entries, _Entry(sources, settings, made)][-_MOST_ENTRIES:]
