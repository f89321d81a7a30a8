"""Finds rows with the same input, within splits and between them, by the digests of all rows.

Invariant: about a million rows are in memory at once. More are kept in temporary files, by bits of their digests, so that equal
digests are in one of them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.formats.chunk import Chunk
from service.formats.media.encoded import DIGEST_BYTES
from service.spec.dataset_facts import RowPlace, SharedRow, SharedRows
from service.spec.split_names import split_roles

_MOST_HELD_ROWS = 1_000_000
_NUM_FILES = 64
_SHOWN = 3
_ROW = np.dtype([("digest", "<u8", (2,)), ("row", "<i8"), ("line", "<i8"), ("split", "u1")])
_NO_LINE = -1


class RepeatedRows:
    """The digests of the rows of a dataset; ``folder`` has room for them, by default the system's temporary folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._splits: list[str] = []
        self._held: list[NDArray[np.void]] = []
        self._num_held = 0
        self._files: list[Path] = []
        self._open = ExitStack()

    def close(self) -> None:
        """Ends the temporary files."""
        self._open.close()

    def add(self, chunk: Chunk, digests: pa.Array) -> None:
        """Adds the rows of a chunk, with their digests (N,)."""
        if chunk.split not in self._splits:
            self._splits.append(chunk.split)
        rows = np.empty(len(digests), dtype=_ROW)
        start = digests.offset * DIGEST_BYTES
        rows["digest"] = np.frombuffer(digests.buffers()[1], "<u8", count=2 * len(digests), offset=start).reshape(-1, 2)
        rows["row"], rows["line"] = chunk.rows, _NO_LINE if chunk.lines is None else chunk.lines
        rows["split"] = self._splits.index(chunk.split)
        self._held.append(rows)
        self._num_held += len(rows)
        if self._num_held >= _MOST_HELD_ROWS:
            self._write()

    def find(self) -> tuple[dict[str, int], list[SharedRows]]:
        """The number of rows by split whose input an earlier row of it has; and what the splits share."""
        order = self._order()
        repeated: Counter[int] = Counter()
        shared = {(later, earlier): _Shared() for earlier, later in combinations(order, 2)}
        for rows in self._parts():
            heads, counts, inputs = _heads(rows)
            for split in order:
                is_of = heads["split"] == split
                repeated[split] += int((counts[is_of] - 1).sum())
            for (split, also_in), found in shared.items():
                found.add(heads, counts, inputs, split=split, also_in=also_in)
        return (
            {self._splits[split]: repeated[split] for split in range(len(self._splits))},
            [found.told(self._splits[split], self._splits[other]) for (split, other), found in shared.items() if found.num_rows],
        )

    def _order(self) -> list[int]:
        """The splits, of which the one to train on comes first."""
        train = split_roles(self._splits).train
        return sorted(range(len(self._splits)), key=lambda split: (self._splits[split] != train, self._splits[split]))

    def _write(self) -> None:
        if not self._files:
            parent = Path(self._open.enter_context(TemporaryDirectory(dir=self._folder)))
            self._files = [parent / str(number) for number in range(_NUM_FILES)]
        held = np.concatenate(self._held)
        number = (held["digest"][:, 0] % _NUM_FILES).astype(np.int64)
        for index, path in enumerate(self._files):
            with path.open("ab") as file:
                file.write(held[number == index].tobytes())
        self._held, self._num_held = [], 0

    def _parts(self) -> Iterator[NDArray[np.void]]:
        """All rows, those of the same digest in one part."""
        if not self._files:
            yield np.concatenate(self._held) if self._held else np.empty(0, dtype=_ROW)
            return
        if self._held:
            self._write()
        for path in self._files:
            yield np.fromfile(path, dtype=_ROW)


class _Shared:
    """What two splits share."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._first: list[SharedRow] = []

    def add(
        self, heads: NDArray[np.void], counts: NDArray[np.int64], inputs: NDArray[np.int64], *, split: int, also_in: int
    ) -> None:
        here, there = np.flatnonzero(heads["split"] == split), np.flatnonzero(heads["split"] == also_in)
        _, in_here, in_there = np.intersect1d(inputs[here], inputs[there], assume_unique=True, return_indices=True)
        here, there = here[in_here], there[in_there]
        self.num_rows += int(counts[here].sum())
        for index in np.argsort(heads["row"][here])[:_SHOWN]:
            self._first.append(SharedRow(here=_place(heads[here[index]]), there=_place(heads[there[index]])))
        self._first = sorted(self._first, key=lambda pair: pair.here.row)[:_SHOWN]

    def told(self, split: str, also_in: str) -> SharedRows:
        return SharedRows(split=split, also_in=also_in, rows=self.num_rows, first=self._first)


def _heads(rows: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.int64]]:
    """The first row of each input in each split; how many rows there have that input; and the number of the input."""
    digest = rows["digest"]
    rows = rows[np.lexsort((rows["row"], rows["split"], digest[:, 1], digest[:, 0]))]
    is_new_input = np.ones(len(rows), dtype=np.bool_)
    is_new_input[1:] = (rows["digest"][1:] != rows["digest"][:-1]).any(axis=1)
    is_head = is_new_input.copy()
    is_head[1:] |= rows["split"][1:] != rows["split"][:-1]
    first = np.flatnonzero(is_head)
    return rows[first], np.diff(np.append(first, len(rows))), np.cumsum(is_new_input, dtype=np.int64)[first]


def _place(row: np.void) -> RowPlace:
    return RowPlace(row=int(row["row"]), line=None if row["line"] == _NO_LINE else int(row["line"]))
