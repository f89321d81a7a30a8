"""Labels of one column over all splits, converted to class indices.

A column of integers holds class indices, and the classes are called by their numbers, up to the highest that occurs in any
split. A column of strings holds class names, in NFC, which are sorted to get indices. A column of integers may come with names
(Hugging Face's ClassLabel); booleans are the classes ``false`` and ``true``. A missing label has the index -1; a column without
any label has no classes.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import MINUS_ONE, Chunk, is_unicode
from service.formats.targets.target import Settled, TargetTally

MAX_CLASSES = 100_000
MAX_CLASS_NAME_CHARACTERS = 1000
BOOLEANS = ("false", "true")
"""The class names of a column of booleans."""


def class_indices(
    values: NDArray[np.generic], *, is_missing: NDArray[np.bool_] | None = None, place: Callable[[int], str]
) -> NDArray[np.int64]:
    """Converts integers (N,) of any width to class indices, -1 if ``is_missing``, ``MINUS_ONE`` for -1.

    ``place`` names the place of a row.

    Raises:
        InvalidFile: one is below -1 or beyond 64 bits.
    """
    indices = values.astype(np.int64)
    beyond = indices.astype(values.dtype) != values
    if values.dtype.kind == "u":
        beyond |= indices < 0
    is_minus_one = (indices == -1) & (values.dtype.kind == "i")
    negative = (indices < 0) & ~is_minus_one
    indices[is_minus_one] = MINUS_ONE
    if is_missing is not None:
        beyond, negative = beyond & ~is_missing, negative & ~is_missing
        indices[is_missing] = -1
    if beyond.any():
        raise InvalidFile(f"{place(int(np.argmax(beyond)))}: the label is beyond 64 bits; {HOW_TO_NUMBER}")
    if negative.any():
        index = int(np.argmax(negative))
        raise InvalidFile(
            f"{place(index)}: label {values[index]}; labels are class indices, 0 and above, or -1 in a row without a label: "
            f"leave the value empty or write -1 where there is none; if it is a class, {HOW_TO_NUMBER}; {HOW_TO_REGRESS}"
        )
    return indices


HOW_TO_NUMBER = "number the classes from 0, for instance with numpy.unique(label, return_inverse=True)[1]"
HOW_TO_REGRESS = "numbers that are no classes are written as floats (3.0), and the spec's dataset.numbers names them"


@dataclass
class LabelTally(TargetTally):
    """Counts the labels of each split and determines the classes at the end."""

    names: list[str] | None = None
    """The class names, if the file gives them for integer labels."""
    is_only: bool = False
    """Whether there is no other target."""
    _counts: dict[str, dict[int, int]] = field(default_factory=dict)
    _strings: dict[str, int] = field(default_factory=dict)
    """The code of each class."""
    _spelled: dict[str, int] = field(default_factory=dict)
    """The code of each name as it stands in the file: one name may be spelled in several forms of Unicode."""

    def __post_init__(self) -> None:
        for name in self.names or ():
            check_class_name(name, place=f"column {self.column!r}")

    def empty(self, num_rows: int) -> NDArray[np.int64]:
        return np.empty(num_rows, dtype=np.int64)

    def add(self, chunk: Chunk) -> NDArray[np.int64]:
        labels = chunk.targets[self.column]
        if isinstance(labels, np.ndarray):
            given = cast(NDArray[np.int64], labels)
            self._count_minus_ones(chunk, given == MINUS_ONE)
            is_missing = given < 0
            codes = np.where(is_missing, -1, given)
            self._refuse_unnamed(codes, chunk)
        else:
            is_missing = np.fromiter((label is None for label in labels), dtype=np.bool_, count=len(labels))
            codes = np.fromiter(self._codes(labels, chunk), dtype=np.int64, count=len(labels))
        self._count(chunk, is_missing)
        counts = self._counts.setdefault(chunk.split, {})
        for code, count in zip(*(part.tolist() for part in np.unique(codes[~is_missing], return_counts=True)), strict=True):
            counts[code] = counts.get(code, 0) + count
        if len(counts) > MAX_CLASSES:
            raise InvalidFile(
                f"{self._place(chunk.split)} has more than {MAX_CLASSES:,} different labels: that is no column of classes; "
                f"{HOW_TO_REGRESS}"
            )
        return codes

    def settle(self) -> Settled:
        if not self.num_present.total() and self.names is None:
            return self._settle_without_values()
        if self.names is None and self.is_only and self.first_minus_one and not self._strings:
            refuse_signs(self, max(max(counts) for counts in self._counts.values() if counts))
        if self._strings:
            names = sorted(self._strings)
            order = {self._strings[name]: index for index, name in enumerate(names)}
        else:
            names = self.names if self.names is not None else [str(index) for index in range(self._num_indices())]
            order = {index: index for index in range(len(names))}
        counts = {split: [0] * len(names) for split in self._counts}
        for split, by_code in self._counts.items():
            for code, count in by_code.items():
                counts[split][order[code]] = count
        codes = np.fromiter((*(order[code] for code in range(len(order))), -1), dtype=np.int64, count=len(order) + 1)
        return Settled(missing_counts=dict(self.missing_counts), classes=names, counts=counts, index_of_code=codes)

    def _codes(self, labels: Sequence[str | None], chunk: Chunk) -> Iterable[int]:
        for index, label in enumerate(labels):
            if label is None:
                yield -1
                continue
            if (code := self._spelled.get(label)) is None:
                check_class_name(label, place=chunk.place(self.column, index))
                name = unicodedata.normalize("NFC", label)
                code = self._spelled[label] = self._strings.setdefault(name, len(self._strings))
            yield code

    def _refuse_unnamed(self, codes: NDArray[np.int64], chunk: Chunk) -> None:
        if self.names is None or not (wrong := codes >= len(self.names)).any():
            return
        index = int(np.argmax(wrong))
        raise InvalidFile(
            f"{chunk.place(self.column, index)}: label {codes[index]}; labels are class indices, 0 and above and below "
            f"{len(self.names)}, the number of class names. Name that class too, or drop the row"
        )

    def _num_indices(self) -> int:
        highest, split = max((max(counts), split) for split, counts in self._counts.items() if counts)
        if highest >= MAX_CLASSES:
            raise InvalidFile(
                f"{self._place(split)} has the label {highest}; class indices run from 0 to {MAX_CLASSES - 1:,} at most: "
                f"{HOW_TO_NUMBER}; {HOW_TO_REGRESS}"
            )
        return highest + 1

    def _place(self, split: str) -> str:
        return f"column {self.column!r} of split {split!r}"


def refuse_signs(tally: TargetTally, highest: int) -> None:
    """Raises InvalidFile if an only target holds -1 and nothing above 1: -1 may be a class as well as no label."""
    if highest == 1:
        raise InvalidFile(
            f"column {tally.column!r} holds -1 and nothing above 1 (the first -1: {tally.first_minus_one}): if -1 is a class, "
            f"{HOW_TO_NUMBER}; if it marks rows without a label, leave the value empty, in an npz numpy.where({tally.column} < 0"
            f", numpy.nan, {tally.column})"
        )


def check_class_name(name: str, *, place: str) -> None:
    """Raises InvalidFile if a class cannot be called so; ``place`` is where it is, for messages."""
    if len(name) > MAX_CLASS_NAME_CHARACTERS:
        raise InvalidFile(
            f"{place}: the name of a class has {len(name):,} characters; at most {MAX_CLASS_NAME_CHARACTERS:,} may be. Give the "
            "classes short names"
        )
    if "\0" in name or not is_unicode(name):
        raise InvalidFile(f"{place}: class {name!r:.80} holds a NUL or half a surrogate pair; rename it")
