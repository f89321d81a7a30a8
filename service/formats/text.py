"""Checks of texts, and the answers of a ``causal-lm`` dataset."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from service.errors import InvalidFile
from service.formats.chat import Chat
from service.formats.chunk import Chunk, is_unicode
from service.formats.targets.target import Settled, TargetTally

HOW_TO_WRITE_CHATS = (
    "chats are for a causal-lm; for other tasks write each as one text, for instance "
    "tokenizer.apply_chat_template(messages, tokenize=False)"
)
HOW_TO_WRITE_LISTS = "write one text a row, for instance with ' '.join(…)"
MAX_TEXT_CHARACTERS = 1_000_000
"""The length of a long book."""


@dataclass
class CharacterLimit:
    """The characters of a Parquet column so far: dictionary encoding or compression can make a small file of large texts."""

    most: int
    what: str
    """What they are of, in the plural."""
    count: int = 0

    def add(self, number: int, *, first_row: int) -> None:
        """Adds those of some rows; row 0 begins anew. Raises InvalidFile if there are too many."""
        self.count = number + (self.count if first_row else 0)
        if self.count > self.most:
            raise InvalidFile(f"unpacked, the {self.what} have more than {self.most:,} bytes; send fewer rows")


def check_texts(values: Iterable[object], *, place: Callable[[int], str]) -> list[str]:
    """Checks that all values are texts and returns them. ``place`` gives the place of a row, for messages.

    Raises:
        InvalidFile: a value is not a string, empty, too long, or contains NUL or a lone surrogate.
    """
    texts = []
    for index, value in enumerate(values):
        if fault := _fault(value):
            raise InvalidFile(f"{place(index)}: {fault}")
        texts.append(str(value))
    return texts


class AnswerTally(TargetTally):
    """Checks and counts the answers of a dataset."""

    def empty(self, num_rows: int) -> list[str]:
        return [""] * num_rows

    def add(self, chunk: Chunk) -> list[str]:
        values = chunk.targets[self.column]
        if all(isinstance(value, Chat) for value in values):
            answers = cast(list[str], list(values))  # checked where they were read
        else:
            answers = check_texts(values, place=lambda index: chunk.place(self.column, index))
        self.num_present[chunk.split] += len(answers)
        return answers

    def settle(self) -> Settled:
        return Settled(missing_counts=dict(self.missing_counts))


def _is_chat(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "content" in each for each in value)


def _fault(value: object) -> str | None:
    if value is None:
        return "there is no value; write a text or drop the row"
    if isinstance(value, list | dict):
        return f"a text is a string, not {value!r:.80}; {HOW_TO_WRITE_CHATS if _is_chat(value) else HOW_TO_WRITE_LISTS}"
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
