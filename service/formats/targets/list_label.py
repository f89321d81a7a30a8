"""Lists in one column over all splits: several classes of a row, or how probable each class is.

Lists of strings are names of classes, those that a row has; lists of integers their indices. Lists of one length that hold 0 and
1 alone have a place for each class, with 1 where the row has it; if every row has exactly one, they are plain classes. Lists of
one length with fractions are probabilities, and must sum to 1. An empty list is a row with none of the classes, null one without
a label. What the numbers mean is decided once all were read, by the same rule for every format.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import Chunk
from service.formats.targets.label import check_class_name
from service.formats.targets.target import Settled, TargetArray, TargetTally

MAX_LISTED_CLASSES = 10_000
"""A row has a number for each."""
SUM_TOLERANCE = 1e-3
_HOW = "a list holds the names or the indices of a row's classes, 0 or 1 for each class, or the probability of each class"


@dataclass
class ListTally(TargetTally):
    """Counts the lists of each split, and decides at the end what their numbers are."""

    names: list[str] | None = None
    """The class names, if the file gives them for indices."""
    first_list: str = ""
    """The place of the first list."""
    is_one_hot: bool = False
    """Whether every list has a place for each class and exactly one 1, known once settled."""
    _codes: dict[str, int] = field(default_factory=dict)
    _lengths: Counter[int] = field(default_factory=Counter)
    _highest: int = -1
    _all_whole: bool = True
    _first_repeat: str = ""
    _first_fraction: str = ""
    _first_beyond_one: str = ""
    _first_not_one: str = ""
    """The place of the first list whose sum is not 1, with the sum."""
    _first_not_single: str = ""
    _first_other_length: str = ""
    _rows: dict[str, list[NDArray[np.float64] | None]] = field(default_factory=dict)
    """Every list by split, as numbers: codes of names, or what the file has."""

    def __post_init__(self) -> None:
        for name in self.names or ():
            check_class_name(name, place=f"column {self.column!r}")

    def empty(self, num_rows: int) -> list[Any]:
        return [None] * num_rows

    def add(self, chunk: Chunk) -> TargetArray:
        found: list[Any] = []
        for index, value in enumerate(chunk.targets[self.column]):
            found.append(None if value is None else self._checked(value, chunk, index))
        is_missing = np.fromiter((each is None for each in found), dtype=np.bool_, count=len(found))
        self._count(chunk, is_missing)
        self._rows.setdefault(chunk.split, []).extend(found)
        return found

    def settle(self) -> Settled:
        if not self.num_present.total():
            return replace(self._settle_without_values(), array=lambda rows: np.full(len(rows), -1, dtype=np.int64))
        if self._codes or not self._lengths.keys() - {0}:
            names = sorted(self._codes)
            places = {name: index for index, name in enumerate(names)}
            order = np.array([places[name] for name in self._codes] or [0])
            return self._several(names, lambda row: order[row.astype(np.int64)])
        if not self._all_whole:
            return self._probabilities()
        return self._of_places(max(self._lengths)) if self._are_places() else self._indices()

    def _are_places(self) -> bool:
        """Whether whole numbers are 0 and 1, one for each class. Raises InvalidFile if they may be indices too."""
        if len(self._lengths) > 1 or max(self._lengths) < 2 or self._first_beyond_one:
            return False
        if self._first_repeat or self.names is None:
            return True
        # Every list is a 0 and a 1, which as indices of two classes say nothing, and as places are no indices of names.
        if len(self.names) == 2:
            raise InvalidFile(
                f"column {self.column!r} holds a 0 and a 1 in every list, beside the names of two classes: they may be indices "
                "or places; write the names of each row's classes instead"
            )
        return False

    def _checked(self, value: Any, chunk: Chunk, index: int) -> NDArray[np.float64]:
        place = chunk.place(self.column, index)
        if not isinstance(value, list | tuple):
            raise InvalidFile(f"{place}: {value!r:.80} is no list, as other rows have; {_HOW}")
        self.first_list = self.first_list or place
        if all(isinstance(each, str) for each in value):
            row = np.array([self._code(each, place) for each in value], dtype=np.float64)
            is_other = bool(value) and self._highest >= 0
        elif all(isinstance(each, int | float) for each in value):
            row = self._numbers(value, place)
            self._watch(row, place)
            is_other = bool(self._codes)
        else:
            raise InvalidFile(f"{place}: {value!r:.80} holds neither strings nor numbers alone; {_HOW}")
        if is_other:
            raise InvalidFile(
                f"{place}: {value!r:.80}, and other rows hold {'numbers' if self._highest >= 0 else 'names'}; {_HOW}"
            )
        if self._lengths and len(row) not in self._lengths:
            self._first_other_length = self._first_other_length or f"{place} has {len(row)} and others {max(self._lengths)}"
        self._lengths[len(row)] += 1
        return row

    def _code(self, name: str, place: str) -> int:
        if not name or name.isspace():
            raise InvalidFile(f"{place}: a class without a name; leave it out of the list")
        name = unicodedata.normalize("NFC", name)
        if (code := self._codes.get(name)) is None:
            check_class_name(name, place=place)
            code = self._codes[name] = len(self._codes)
        return code

    def _numbers(self, value: Sequence[float], place: str) -> NDArray[np.float64]:
        try:
            return np.array(value, dtype=np.float64)
        except OverflowError as error:
            raise InvalidFile(f"{place}: {value!s:.80} holds a number of hundreds of digits; {_HOW}") from error

    def _watch(self, row: NDArray[np.float64], place: str) -> None:
        """Notes what the numbers of a list cannot be."""
        if not (np.isfinite(row).all() and (row >= 0).all()):
            raise InvalidFile(f"{place}: {row.tolist()!s:.80} holds a number below 0, or none; {_HOW}")
        if not len(row):
            return
        self._highest = max(self._highest, int(row.max()))
        if (row != np.trunc(row)).any():
            self._all_whole, self._first_fraction = False, self._first_fraction or place
        if (row > 1).any():
            self._first_beyond_one = self._first_beyond_one or place
        if len(np.unique(row)) < len(row):
            self._first_repeat = self._first_repeat or place
        if abs(row.sum() - 1) > SUM_TOLERANCE:
            self._first_not_one = self._first_not_one or f"{place} sums to {row.sum():.6g}"

    def _probabilities(self) -> Settled:
        how = f"column {self.column!r} holds fractions ({self._first_fraction}), as probabilities of the classes are"
        if self._first_other_length:
            raise InvalidFile(f"{how}, and lists of other lengths: {self._first_other_length}; write one number for each class")
        if self._first_not_one:
            raise InvalidFile(f"{how}, and {self._first_not_one}: divide each row by its sum; {_HOW}")
        width = self._checked_width(max(self._lengths))
        shares = {name: sum((row for row in rows if row is not None), np.zeros(width)) for name, rows in self._rows.items()}
        counts = {name: [round(share) for share in each] for name, each in shares.items()}
        return self._settled("probabilities", self._class_names(width), counts, lambda row: row)

    def _of_places(self, width: int) -> Settled:
        width = self._checked_width(width)
        self.is_one_hot = not self._first_not_one
        counts = {
            name: [int(count) for count in sum((row for row in rows if row is not None), np.zeros(width))]
            for name, rows in self._rows.items()
        }
        return self._settled("label" if self.is_one_hot else "labels", self._class_names(width), counts, lambda row: row)

    def _indices(self) -> Settled:
        if self._first_repeat:
            raise InvalidFile(f"{self._first_repeat}: an index stands in the list twice; {_HOW}")
        if self.names is not None and self._highest >= len(self.names):
            raise InvalidFile(
                f"column {self.column!r} holds the index {self._highest}, and there are {len(self.names)} class names"
            )
        width = self._highest + 1 if self.names is None else len(self.names)
        return self._several(self._class_names(self._checked_width(width)), lambda row: row.astype(np.int64))

    def _several(self, names: list[str], places: Any) -> Settled:
        width = self._checked_width(len(names))

        def dense(row: NDArray[np.float64]) -> NDArray[np.float64]:
            ones = np.zeros(width)
            ones[places(row)] = 1
            return ones

        counts = {}
        for split, rows in self._rows.items():
            of_split = np.zeros(width, dtype=np.int64)
            for row in rows:
                if row is not None and len(row):
                    of_split[np.unique(places(row))] += 1
            counts[split] = of_split.tolist()
        return self._settled("labels", names, counts, dense)

    def _settled(self, kind: Any, names: list[str], counts: dict[str, list[int]], dense: Any) -> Settled:
        self._rows.clear()

        def array(rows: Sequence[NDArray[np.float64] | None]) -> TargetArray:
            if kind == "label":
                return np.array([-1 if row is None else int(row.argmax()) for row in rows], dtype=np.int64)
            missing = np.full(len(names), np.nan)
            return np.array([missing if row is None else dense(row) for row in rows], dtype=np.float32).reshape(-1, len(names))

        return Settled(missing_counts=dict(self.missing_counts), classes=names, counts=counts, kind=kind, array=array)

    def _class_names(self, width: int) -> list[str]:
        if self.names is None:
            return [str(index) for index in range(width)]
        if len(self.names) != width:
            raise InvalidFile(
                f"column {self.column!r} ({self.first_list}) holds lists of {width} numbers, one for each class, and the file "
                f"names {len(self.names)} classes: name each, or none"
            )
        return self.names

    def _checked_width(self, width: int) -> int:
        check_width(width, place=f"column {self.column!r}")
        if width < 2:
            raise InvalidFile(
                f"column {self.column!r} ({self.first_list}) holds lists of {width} classes; two at least are needed"
            )
        return width


def check_width(width: int, *, place: str) -> None:
    """Raises InvalidFile if that are too many classes for lists of them."""
    if width > MAX_LISTED_CLASSES:
        raise InvalidFile(f"{place} has {width:,} classes in its lists; at most {MAX_LISTED_CLASSES:,} may be")
