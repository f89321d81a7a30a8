"""Pairs of texts, which a network reads together: a premise and a hypothesis, a question and a passage, two sentences."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar, cast

_Inputs = TypeVar("_Inputs")


class TextPair(NamedTuple):
    """Two texts of one row, in the order of their columns."""

    first: str
    second: str


def paired(columns: Sequence[_Inputs]) -> _Inputs | list[TextPair]:
    """The inputs of a single column as they are, or the pairs of two columns of texts."""
    if len(columns) == 1:
        return columns[0]
    first, second = cast(Sequence[Sequence[str]], columns)
    return [TextPair(*each) for each in zip(first, second, strict=True)]
