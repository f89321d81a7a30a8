"""The shape of one sample as a network reads it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenShape:
    """A text as token ids."""

    vocabulary: int
    """Ids are below it."""
    length: int
    """Most tokens of one text."""
    pad: int
    """The id that fills shorter texts up, at their end; takes no part in attention."""
    start: int | None = None
    """The id that a text begins with."""
    end: int | None = None
    """The id that a text ends with."""
    has_types: bool = False
    """Whether tokens have a type, 0 in the first text of a pair and 1 in the second."""


InputShape = tuple[int, ...] | TokenShape
"""Of one sample as the network reads it: images (C, H, W), waveforms (T,), log-mel spectrograms (1, F, M), tokens."""
