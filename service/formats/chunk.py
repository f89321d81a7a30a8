"""What every reader yields: some rows of one split, small enough to hold."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.image import ImageShape
from service.spec.data import Column

CHUNK_BYTES = 8 * 2**20
"""About how much of a file is held at once."""
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Chunk:
    """Rows of one split. N samples, C channels, H height, W width."""

    split: str
    rows: NDArray[np.int64]
    """Their numbers in the file, from 0, for messages."""
    images: NDArray[np.generic]
    """(N, C, H, W), uint8 or float32."""
    labels: NDArray[np.int64] | Sequence[str]
    """(N,)."""


class ImageTable(Protocol):
    """An open dataset file whose layout was checked; its samples are checked as they are read."""

    class_names: list[str] | None
    label_column: str
    splits: dict[str, int]
    """Rows by split."""

    def chunks(self) -> Iterator[Chunk]:
        """Every row, split by split or in the file's order."""

    def image_shape(self) -> ImageShape:
        """The shape of every image; known at the latest when all chunks were read."""

    def columns(self) -> dict[str, Column]:
        """What to tell of the columns; known at the latest when all chunks were read."""


def check_split_name(name: str) -> str:
    """A split's name as the file has it, where it can be one.

    Raises:
        InvalidFile: it cannot.
    """
    if not _SPLIT_NAME.fullmatch(name):
        raise InvalidFile(f"{name!r:.80} is no name of a split: letters, digits, '_', '.' and '-', 64 at most")
    return name
