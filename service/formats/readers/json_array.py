"""Reads one array of JSON element by element, so that files larger than memory can be read."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from service.errors import InvalidFile
from service.formats.readers.lines import MAX_LINE_BYTES
from service.formats.readers.text_file import TextFile, open_text

_PIECE_BYTES = 2**20
_SPACE = " \t\r\n"


def is_array(path: Path) -> bool:
    """Whether the first character of a file of text is the bracket of an array."""
    with open_text(path) as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def read_array(path: Path, object_of: Callable[[list[tuple[str, object]]], object]) -> Iterator[tuple[int, object]]:
    """Yields each element with the line on which it begins, from 1; ``object_of`` makes an object of its pairs.

    Raises:
        InvalidFile: it is no array of JSON, an element is longer than a line may be, or ``object_of`` raises RepeatedKey.
    """
    with open_text(path) as file:
        held = _Held(file, json.JSONDecoder(object_pairs_hook=object_of))
        held.take("[")
        if held.next_character() == "]":
            held.take("]")
        else:
            while True:
                held.next_character()
                yield held.line, held.value()
                if held.take(",", "]") == "]":
                    break
        if held.next_character():
            raise InvalidFile(f"line {held.line}: something follows the end of the array; write all rows into one array")


class RepeatedKey(Exception):
    """An object of JSON has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def repeated(error: RepeatedKey, *, line: int) -> InvalidFile:
    """The refusal of the row that begins on that line."""
    return InvalidFile(f"line {line} has the key {error.key!r:.100} twice; keep one of them")


class _Held:
    """The part of the text that is in memory."""

    def __init__(self, file: TextFile, decoder: json.JSONDecoder) -> None:
        self._file, self._decoder = file, decoder
        self._utf_8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._is_whole = "", 0, False
        self.line = 1

    def next_character(self) -> str:
        """The next character that is no space, which is not passed; empty at the end."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in _SPACE:
                    return character
                self.line += character == "\n"
                self._at += 1
            if self._is_whole:
                return ""
            self._read_on(_PIECE_BYTES)

    def take(self, *expected: str) -> str:
        """Passes one of these characters and returns it."""
        found = self.next_character()
        if found not in expected or not found:
            what = f"{found!r} stands" if found else "the file ends"
            raise InvalidFile(
                f"line {self.line} is no JSON: {what} where {' or '.join(map(repr, expected))} was expected; write one array of "
                "rows, json.dump(rows, file), or each row as one JSON object on a line of its own"
            )
        self._at += 1
        return found

    def value(self) -> object:
        """Passes the next value and returns it."""
        more = _PIECE_BYTES
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RepeatedKey as error:
                raise repeated(error, line=self.line) from error
            except (ValueError, RecursionError) as error:
                at = error.pos if isinstance(error, json.JSONDecodeError) else self._at
                # It may only be cut off; a broken row is one at the end of the file, or of what a row may have.
                if isinstance(error, json.JSONDecodeError) and not self._is_whole and len(self._text) - self._at < MAX_LINE_BYTES:
                    self._read_on(more)
                    more *= 2
                    continue
                line = self.line + self._text.count("\n", self._at, at)
                raise InvalidFile(
                    f"line {line} is no JSON: {str(error)[:200]}; in the row that begins on line {self.line}"
                ) from error
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            return value

    def _read_on(self, num_bytes: int) -> None:
        data = self._file.read(num_bytes)
        self._is_whole = not data
        try:
            text = self._utf_8.decode(data, final=self._is_whole)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n", self._at) + error.object[: error.start].count(b"\n")
            raise InvalidFile(f"line {line} is no UTF-8; save the file as UTF-8 text") from error
        self._text, self._at = self._text[self._at :] + text, 0
