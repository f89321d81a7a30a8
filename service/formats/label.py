"""Labels of one column over all splits: from what is written in the file to class indices.

A column of integers counts from 0 without a gap; a column of strings names its classes, in alphabetical order; a column of
integers with names (HuggingFace's ClassLabel) has both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile

MAX_CLASSES = 100_000


@dataclass
class LabelTally:
    """Counts the labels of each split as they come, and says at the end which classes there are."""

    column: str
    names: list[str] | None = None
    """The classes' names where the file says them beside integer labels."""
    _counts: dict[str, dict[int, int]] = field(default_factory=dict)
    _strings: dict[str, int] = field(default_factory=dict)

    def add(
        self, labels: NDArray[np.int64] | Sequence[str], *, split: str, rows: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Takes the labels of some rows (their numbers in the file, for messages); answers with provisional codes (N,)."""
        if isinstance(labels, np.ndarray):
            codes = labels
            wrong = codes < 0 if self.names is None else (codes < 0) | (codes >= len(self.names))
            if wrong.any():
                at = int(np.argmax(wrong))
                known = "" if self.names is None else f" and below {len(self.names)}, the number of class names"
                raise InvalidFile(
                    f"{self._place(split)}, row {rows[at]}: label {codes[at]}; labels are class indices, 0 and above{known}. "
                    "Drop rows without a label"
                )
        else:
            codes = np.fromiter((self._code(label) for label in labels), dtype=np.int64, count=len(labels))
        counts = self._counts.setdefault(split, {})
        for code, count in zip(*(part.tolist() for part in np.unique(codes, return_counts=True)), strict=True):
            counts[code] = counts.get(code, 0) + count
        if len(counts) > MAX_CLASSES:
            raise InvalidFile(
                f"{self._place(split)} has more than {MAX_CLASSES:,} different labels: that is no column of classes"
            )
        return codes

    def settle(self) -> "Classes":
        """The classes, once every row was added.

        Raises:
            InvalidFile: fewer than two classes, a gap in the indices, or a label that the training split does not know.
        """
        reference = "train" if "train" in self._counts else next(iter(self._counts))
        seen = self._counts[reference].keys()
        if self.names is None:
            self._refuse_unknown(reference)
        if self._strings:
            names = sorted(self._strings)
            order = {self._strings[name]: index for index, name in enumerate(names)}
        else:
            names = self.names if self.names is not None else [str(index) for index in range(self._contiguous(reference))]
            order = {index: index for index in range(len(names))}
        if len(seen) < 2:
            raise InvalidFile(f"{self._place(reference)} has {len(seen)} class; a classification needs at least two")
        counts = {split: [0] * len(names) for split in self._counts}
        for split, by_code in self._counts.items():
            for code, count in by_code.items():
                counts[split][order[code]] = count
        codes = np.fromiter((order[code] for code in range(len(order))), dtype=np.int64, count=len(order))
        return Classes(names=names, counts=counts, index_of_code=codes)

    def _code(self, label: str) -> int:
        return self._strings.setdefault(label, len(self._strings))

    def _refuse_unknown(self, reference: str) -> None:
        for split, counts in self._counts.items():
            if unknown := counts.keys() - self._counts[reference].keys():
                raise InvalidFile(
                    f"{self._place(split)} has labels that split {reference!r} has no sample of: {self._shown(unknown)}"
                )

    def _contiguous(self, reference: str) -> int:
        seen = self._counts[reference].keys()
        missing = next((index for index in range(len(seen)) if index not in seen), None)
        if missing is None:
            return len(seen)
        raise InvalidFile(
            f"{self._place(reference)}: class indices run from 0 without a gap, but none is {missing} and one is {max(seen)}; "
            "number the classes anew, for instance with numpy.unique(label, return_inverse=True)"
        )

    def _shown(self, codes: Iterable[int]) -> str:
        names = list(self._strings)
        shown = sorted(repr(names[code]) if names else str(code) for code in codes)
        return ", ".join(shown[:10]) + (", …" if len(shown) > 10 else "")

    def _place(self, split: str) -> str:
        return f"column {self.column!r} of split {split!r}"


@dataclass(frozen=True)
class Classes:
    """What a column's labels mean."""

    names: list[str]
    counts: dict[str, list[int]]
    """Samples of each class, by split."""
    index_of_code: NDArray[np.int64]
    """From :meth:`LabelTally.add`'s codes to class indices."""
