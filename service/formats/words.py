"""Words of a row, each with a tag of its own: given as a list, or made here from a text and the spans in it.

Everything behind a reader sees words and IOB2 tags. The words of a text are runs of letters, digits and their marks; every
punctuation mark, symbol and Chinese or Japanese character is a word by itself; spaces and control characters are none.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

from service.errors import InvalidFile
from service.formats.chunk import Chunk, is_unicode
from service.formats.text import MAX_TEXT_CHARACTERS

HOW_TO_TAG = (
    "tags stand beside lists of words, and the input is a column of texts: name a column of lists as input_column, or write its "
    "texts as lists, for instance text.split()"
)
HOW_TO_MARK_SPANS = "spans stand beside texts, and the input is a column of words: name the column of texts as input_column"
MAX_WORD_CHARACTERS = 1000
HOW_TO_WRITE_SPANS = "a span is {'start': 0, 'end': 5, 'label': 'PER'}, in characters of the text, without the one at its end"
_HOW_TO_SPLIT = "write the words as a list of strings, for instance text.split()"
_SCRIPTS_WITHOUT_SPACES = (
    (0x3040, 0x30FF),  # Hiragana and Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # the Chinese characters, block by block
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFD),
)
_WORD = re.compile("l(?:[lj]*l)?|[cp]")


class _CharacterClasses(dict[int, str]):
    """Maps each character to ``l``: letter, digit or mark; ``c``: a letter that is a word by itself; ``p``: punctuation, symbol;
    ``j``: invisible between letters, which it joins; or a space.
    """

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if category[0] in "LNM":
            self[code] = "c" if any(first <= code <= last for first, last in _SCRIPTS_WITHOUT_SPACES) else "l"
        else:
            self[code] = "p" if category[0] in "PS" else "j" if category == "Cf" else " "
        return self[code]


_CLASSES = _CharacterClasses()


def word_spans(text: str) -> list[tuple[int, int]]:
    """The first character of each word of a text, and the one behind it."""
    return [match.span() for match in _WORD.finditer(text.translate(_CLASSES))]


def check_tokens(values: Iterable[object], *, place: Callable[[int], str]) -> list[list[str]]:
    """Checks that all values are lists of words and returns them. ``place`` gives the place of a row, for messages.

    Raises:
        InvalidFile: a value is no list of strings, or empty, or a word is empty, too long, or holds NUL or a lone surrogate.
    """
    rows = []
    for index, value in enumerate(values):
        if fault := _row_fault(value):
            raise InvalidFile(f"{place(index)}: {fault}")
        words = cast(list[str], value)
        for number, word in enumerate(words):
            if fault := _word_fault(word):
                raise InvalidFile(f"{place(index)}, word {number}: {fault}")
        if (length := sum(map(len, words))) > MAX_TEXT_CHARACTERS:
            raise InvalidFile(
                f"{place(index)}: the words have {length:,} characters; at most {MAX_TEXT_CHARACTERS:,} may be: cut the row"
            )
        rows.append(words)
    return rows


def as_words(chunk: Chunk, input_column: str) -> Chunk:
    """The rows of a chunk as words and tags: texts are cut, and their spans with them; words are so already.

    Raises:
        InvalidFile: a text has no words, or a span is none of whole words.
    """
    if not isinstance(chunk.inputs[0], str):
        return chunk
    texts = cast(Sequence[str], chunk.inputs)
    cut = [word_spans(text) for text in texts]
    words = rows_of_words(texts)
    check_tokens(words, place=lambda index: chunk.place(input_column, index))
    targets: dict[str, Any] = {
        column: [
            None if spans is None else _tags(spans, texts[index], cut[index], place=chunk.place(column, index))
            for index, spans in enumerate(chunk.targets[column])
        ]
        for column in chunk.targets
    }
    return replace(chunk, inputs=words, targets=targets)


def rows_of_words(inputs: Sequence[Any]) -> list[list[str]]:
    """The words of some rows, which may be texts."""
    return [[row[start:end] for start, end in word_spans(row)] if isinstance(row, str) else row for row in inputs]


def _row_fault(value: object) -> str | None:
    if value is None:
        return "there is no value; write the words or drop the row"
    if isinstance(value, str):
        return f"these are no words but a text, {value!r:.80}; {_HOW_TO_SPLIT}"
    if not isinstance(value, list):
        return f"the words are a list of strings, not {value!r:.80}"
    return None if value else "the list has no words; drop the row"


def _word_fault(word: object) -> str | None:
    if not isinstance(word, str):
        return f"a word is a string, not {word!r:.80}; put it in quotes, or take it out with its tag"
    if not word or word.isspace():
        return "it is empty; take it out with its tag"
    if len(word) > MAX_WORD_CHARACTERS:
        return f"it has {len(word):,} characters; at most {MAX_WORD_CHARACTERS:,} may be: are these words?"
    if "\0" in word:
        return "it holds a NUL character; remove it, for instance with word.replace('\\0', '')"
    if not is_unicode(word):
        return "it holds half a surrogate pair, which is no character; remove it, or write the pair whole"
    return None


def _tags(spans: object, text: str, words: Sequence[tuple[int, int]], *, place: str) -> list[str]:
    """The IOB2 tag of each word of a text."""
    if not isinstance(spans, list):
        raise InvalidFile(f"{place}: the spans are a list, not {spans!r:.80}; {HOW_TO_WRITE_SPANS}")
    tags = ["O"] * len(words)
    span_of_word: dict[int, int] = {}
    for number, span in enumerate(spans):
        start, end, label = _checked(span, text, place=f"{place}, span {number}")
        shown = f"{place}, span {number} ({start} to {end}, {text[start:end]!r:.80})"
        inside = range(bisect_right(words, start, key=itemgetter(1)), bisect_left(words, end, key=itemgetter(0)))
        for at in inside:
            first, last = words[at]
            if first < start or last > end:
                side = "begins" if first < start else "ends"
                raise InvalidFile(
                    f"{shown} {side} inside the word {text[first:last]!r:.80} ({first} to {last}): move its border "
                    "to the word's, or drop the span"
                )
            if at in span_of_word:
                raise InvalidFile(f"{shown} overlaps span {span_of_word[at]}: a word has one tag; keep one of the two")
            span_of_word[at] = number
        if not inside:
            raise InvalidFile(f"{shown} has no word; drop it")
        for at in inside:
            tags[at] = f"{'B' if at == inside[0] else 'I'}-{label}"
    return tags


def _checked(span: object, text: str, *, place: str) -> tuple[int, int, str]:
    if isinstance(span, str):
        raise InvalidFile(f"{place}: {span!r:.80} is no span; {HOW_TO_TAG}")
    if not isinstance(span, dict):
        raise InvalidFile(f"{place}: {span!r:.80} is no span; {HOW_TO_WRITE_SPANS}")
    values = [span.get(name) for name in ("start", "end", "label")]
    match values:
        case [int(start), int(end), str(label)] if not isinstance(values[0], bool) and not isinstance(values[1], bool):
            pass
        case _:
            raise InvalidFile(f"{place}: {span!r:.120} is no span of two whole numbers and a string; {HOW_TO_WRITE_SPANS}")
    if not label or label.isspace():
        raise InvalidFile(f"{place}: the label is empty; name a type, or drop the span")
    if not 0 <= start <= end <= len(text):
        raise InvalidFile(
            f"{place}: it runs from {start} to {end}, and the text has {len(text)} characters; positions are counted from 0 in "
            "characters, not in bytes"
        )
    if start == end:
        raise InvalidFile(f"{place}: it is empty, from {start} to {end}; 'end' is behind the last character: add 1, or drop it")
    return start, end, label
