"""Texts: which strings can be read by a language model and stored, and the answers of a ``causal-lm``."""

from collections.abc import Callable, Iterable

from service.errors import InvalidFile
from service.formats.chunk import Chunk, is_unicode
from service.formats.target import Settled, TargetTally

MAX_TEXT_CHARACTERS = 1_000_000
"""Of one text: a long book."""


def check_texts(values: Iterable[object], *, place: Callable[[int], str]) -> list[str]:
    """The values as texts; ``place`` says where the one of an index stands.

    Raises:
        InvalidFile: one is no text, empty, too long, or holds what is no character.
    """
    texts = []
    for index, value in enumerate(values):
        if fault := _fault(value):
            raise InvalidFile(f"{place(index)}: {fault}")
        texts.append(str(value))
    return texts


class AnswerTally(TargetTally):
    """Holds every answer against what a text may be."""

    def empty(self, num_rows: int) -> list[str]:
        return [""] * num_rows

    def add(self, chunk: Chunk) -> list[str]:
        answers = check_texts(chunk.targets[self.column], place=lambda index: chunk.place(self.column, index))
        self.num_present[chunk.split] += len(answers)
        return answers

    def settle(self) -> Settled:
        return Settled(num_missing=self.num_missing)


def _fault(value: object) -> str | None:
    if value is None:
        return "there is no value; write a text or drop the row"
    if not isinstance(value, str):
        return f"a text is a string, not {value!r:.80}; put it in quotes or drop the row"
    if not value or value.isspace():
        return "the text is empty; write one or drop the row"
    if len(value) > MAX_TEXT_CHARACTERS:
        return f"the text has {len(value):,} characters; at most {MAX_TEXT_CHARACTERS:,} may be: cut it into several rows"
    if "\0" in value:
        return "the text holds a NUL character; remove it, for instance with text.replace('\\0', '')"
    if not is_unicode(value):
        return "the text holds half a surrogate pair, which is no character; remove it, or write the pair whole"
    return None
