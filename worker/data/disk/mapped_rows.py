"""Rows of different lengths in memory-mapped files, such as the tokens of texts: what a step needs is read, the rest is on disk.

The files have no name and end with their last reader. Invariant: rows that are selected are padded to the longest of all, and so
are the tensor that all rows in memory would give. N rows, L the longest row.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.data.disk.mapping import mapped_file


@dataclass(frozen=True, eq=False)
class MappedRows:
    """N rows of one tensor (N, L)."""

    values: NDArray[np.generic]
    """All rows, one after the other."""
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    width: int
    """L, of all rows that were written, with what of them is padding."""
    padding: int
    dtype: torch.dtype
    """Of what is selected."""
    folder: Path
    """Where what is made of the rows may be written too."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.width

    def row(self, index: int) -> Tensor:
        """Reads one row (l,), without padding."""
        start = int(self.starts[index])
        return torch.from_numpy(self.values[start : start + int(self.lengths[index])].copy()).to(self.dtype)

    def narrow(self, start: int, stop: int) -> "MappedRows":
        """The rows from ``start`` to before ``stop``."""
        return replace(self, starts=self.starts[start:stop], lengths=self.lengths[start:stop])

    def select(self, indices: Tensor) -> Tensor:
        """Reads the rows at ``indices`` (B,): (B, L), padded at the end."""
        chosen = indices.cpu().numpy()
        rows = np.full((len(chosen), self.width), self.padding, dtype=self.values.dtype)
        for row, start, length in zip(rows, self.starts[chosen].tolist(), self.lengths[chosen].tolist(), strict=True):
            row[:length] = self.values[start : start + length]
        return torch.from_numpy(rows).to(self.dtype)


@dataclass(frozen=True, eq=False)
class NamedRows:
    """N rows of several tensors by name, each of a length of its own."""

    of: Mapping[str, MappedRows]

    def __len__(self) -> int:
        return len(next(iter(self.of.values())))

    def narrow(self, start: int, stop: int) -> "NamedRows":
        """The rows from ``start`` to before ``stop``."""
        return NamedRows({name: rows.narrow(start, stop) for name, rows in self.of.items()})

    def select(self, indices: Tensor) -> dict[str, Tensor]:
        """Reads the rows at ``indices`` (B,): of each tensor (B, L), padded at the end."""
        return {name: rows.select(indices) for name, rows in self.of.items()}


class RowsWriter:
    """Writes rows, some at a time; leaving it closes the file, of which what was mapped stays."""

    def __init__(self, folder: Path, *, stored: type[np.generic], padding: int, dtype: torch.dtype) -> None:
        """``stored`` is the type of values on disk, ``dtype`` that of the tensors that are read."""
        self._folder, self._stored, self._padding, self._dtype = folder, np.dtype(stored), padding, dtype
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._lengths: list[NDArray[np.int32]] = []
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, rows: Tensor, lengths: Tensor) -> None:
        """Adds rows (n, L'), of which the first ``lengths`` (n,) values count; what follows reads as padding."""
        self._width = max(self._width, rows.shape[1])
        counted = torch.arange(rows.shape[1]) < lengths.unsqueeze(1)
        self._file.write(rows[counted].numpy().astype(self._stored).tobytes())
        self._lengths.append(lengths.numpy().astype(np.int32))

    def add_stream(self, values: Sequence[int]) -> None:
        """Adds values without rows, for :meth:`finish_stream`."""
        self._file.write(np.array(values, dtype=self._stored).tobytes())

    def finish(self) -> MappedRows:
        """Maps what was written."""
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, dtype=np.int32)
        return self._mapped(lengths)

    def finish_stream(self, length: int) -> MappedRows:
        """Maps what was written as whole rows of that length."""
        count, self._width = self._file.tell() // self._stored.itemsize // length, length
        return self._mapped(np.full(count, length, dtype=np.int32))

    def _mapped(self, lengths: NDArray[np.int32]) -> MappedRows:
        self._file.flush()
        ends = np.cumsum(lengths, dtype=np.int64)
        count = int(ends[-1]) if len(ends) else 0
        values: NDArray[np.generic] = np.frombuffer(mapped_file(self._file) if count else b"", dtype=self._stored, count=count)
        return MappedRows(values, ends - lengths, lengths, self._width, self._padding, self._dtype, self._folder)


def mapped_full(shape: tuple[int, int], value: int, folder: Path) -> Tensor:
    """A tensor (N, L), int64, of one value, that may be written to; it is a mapped file, of which memory holds what is in use."""
    if not all(shape):
        return torch.full(shape, value, dtype=torch.int64)
    with tempfile.TemporaryFile(dir=folder) as file:
        values = np.memmap(file, dtype=np.int64, mode="w+", shape=shape)
    values[:] = value
    return torch.from_numpy(values)
