"""Samples that stay on disk: rows of memory-mapped shards, read when they are asked for.

What is in memory are the numbers of the rows, 8 bytes a sample. Invariants: what is read is bit for bit what
:func:`service.formats.read_dataset` makes of the same rows; and :class:`StoredInputs` can be sent to another process, which maps
the same files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from service.formats.media.decoding import decode
from service.formats.media.encoded import DIGEST_BYTES, EncodedImage, text_digest
from service.formats.media.image_extent import common_channels
from service.formats.shards.index import HASH, LENGTH, SIDES, field_name, read_index, shard_path, stored_as
from service.formats.shards.values import read_inputs, read_target
from service.formats.words import rows_of_words
from worker.data.disk.mapping import MappedBatches
from worker.data.images.canvas import Canvas, fit_images

PIECE_ROWS = 256
"""Of a walk over all rows."""
MOST_MEASURED = 10_000
"""Images and clips, which have to be decoded, that something is measured on: evenly spaced ones of a larger split."""
_DIGEST = np.dtype(("V", DIGEST_BYTES))
_MOST_OPEN = 4096
_MOST_WITH_DATA = 16
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Reading:
    """How a trainer reads samples that stay on disk."""

    scratch: Path
    """A folder for what is made of them, such as tokens."""
    num_loaders: int = 0
    """Processes that make batches ahead."""


@dataclass(frozen=True, eq=False)
class StoredInputs(Sequence[Any]):
    """N samples of a column of shards, or of the two of pairs of texts.

    A slice, or an array of row numbers, selects rows; a number reads a sample.
    """

    shards: tuple[Path, ...]
    """Arrow files."""
    ends: NDArray[np.int64]
    """The number of rows up to the end of each shard."""
    columns: tuple[str, ...]
    rows: NDArray[np.int64]
    """(N,), of all shards' rows."""
    reading: Reading
    canvas: Canvas | None = None
    """What files of images are fitted to; None if they are of one size."""
    as_files: bool = False
    """Whether images are read as the files that they are."""
    are_whole: bool = True
    """Whether these are all input columns of the shards, of which the digests there are."""
    as_words: bool = False
    """Whether rows are read as words, which shards may hold as texts."""

    @classmethod
    def of(cls, shards: Sequence[Path], columns: tuple[str, ...], reading: Reading, *, are_whole: bool = True) -> "StoredInputs":
        """All rows of some shards."""
        ends = np.cumsum([_opened(path).ends[-1] for path in shards], dtype=np.int64)
        return cls(tuple(shards), ends, columns, np.arange(ends[-1] if len(ends) else 0), reading, are_whole=are_whole)

    def followed_by(self, other: "StoredInputs") -> "StoredInputs":
        """These samples and then those, of the same column of other shards."""
        before = self.ends[-1] if len(self.ends) else 0
        return replace(
            self,
            shards=(*self.shards, *other.shards),
            ends=np.concatenate([self.ends, other.ends + before]),
            rows=np.concatenate([self.rows, other.rows + before]),
            canvas=self.canvas or other.canvas,  # one where only some of those are grey
            are_whole=self.are_whole and other.are_whole,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> Any: ...
    @overload
    def __getitem__(self, which: "slice | NDArray[np.int64]") -> "StoredInputs": ...
    def __getitem__(self, which: "int | slice | NDArray[np.int64]") -> Any:
        if isinstance(which, int | np.integer):
            return self.read(np.array([range(len(self))[which]]))[0]
        return replace(self, rows=self.rows[which])

    def __iter__(self) -> Iterator[Any]:
        for piece in self.pieces():
            yield from piece

    def pieces(self, size: int = PIECE_ROWS) -> Iterator[Any]:
        """All samples in memory, some at a time."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))

    def numbered_pieces(self, size: int = PIECE_ROWS) -> Iterator[tuple[int, Any]]:
        """The same with the number of each piece's first sample."""
        return zip(range(0, len(self), size), self.pieces(size), strict=True)

    def read(self, chosen: NDArray[np.int64] | None = None) -> Any:
        """Reads the samples ``chosen``, by default all: images as a tensor (B, C, H, W), anything else in a list."""
        rows = self.rows if chosen is None else self.rows[chosen]
        inputs = self._of_batches(rows, [*map(field_name, self.columns), *SIDES, *LENGTH, HASH], self._values)
        if self.is_images and not self.as_files:
            return self._of_images(rows, inputs)
        found: list[Any] = [None] * len(rows)
        for places, part in inputs:
            for place, value in zip(places, part if self.as_files else decode(part), strict=True):
                found[place] = value
        return found

    def _of_images(self, rows: NDArray[np.int64], parts: Sequence[tuple[NDArray[np.int64], Any]]) -> Tensor:
        if not len(rows):
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        read = [(places, self._pixels(part)) for places, part in parts]
        if len(read) == 1 and np.array_equal(read[0][0], np.arange(len(rows))):
            return read[0][1]
        return _scattered(read, len(rows))

    def _values(self, batch: pa.RecordBatch) -> Any:
        if self.kind == "name":
            return read_target(self.columns[0], batch)
        inputs = read_inputs(self.columns, batch)
        return rows_of_words(cast(Sequence[Any], inputs)) if self.as_words else inputs

    def _pixels(self, part: Any) -> Tensor:
        if self.canvas is not None and not isinstance(part, np.ndarray):
            return fit_images(part, self.canvas)
        return torch.from_numpy(np.ascontiguousarray(decode(part)))

    @property
    def files(self) -> "StoredInputs | tuple[()]":
        """The same images as the files that they are; none of arrays."""
        return replace(self, as_files=True) if self.kind == "image" else ()

    @cached_property
    def of_each_size(self) -> list[EncodedImage]:
        """One of the files of images of each size, of which the first have their data; none of other samples."""
        if self.kind != "image" or not len(self):
            return []
        sizes, first = np.unique(np.stack([self._column(name, np.int32) for name in SIDES]), axis=1, return_index=True)
        in_order = np.argsort(first)
        found = [EncodedImage(b"", height, width, channels, b"") for height, width, channels in sizes.T[in_order].tolist()]
        with_data = replace(self, as_files=True).read(first[in_order][:_MOST_WITH_DATA])
        return [*with_data, *found[len(with_data) :]]

    def digests(self) -> NDArray[np.void]:
        """Of each sample (N,) 16 bytes, equal for equal ones alone."""
        if not self.are_whole:
            return np.fromiter((text_digest(text) for text in self), dtype=_DIGEST, count=len(self))
        return self._column(HASH, _DIGEST)

    def seconds(self) -> NDArray[np.float64]:
        """(N,): the lengths of clips of sound, as their files say."""
        samples, rate = (self._column(name, np.int32) for name in LENGTH)
        found: NDArray[np.float64] = np.divide(samples, rate, dtype=np.float64)
        return found

    def evenly(self, most: int = MOST_MEASURED) -> "StoredInputs":
        """Evenly spaced samples of these, ``most`` at most; arrays, which need no decoding, are all taken."""
        if self.kind == "pixels" or len(self) <= most:
            return self
        return self[np.linspace(0, len(self) - 1, num=most).astype(np.int64)]

    @cached_property
    def kind(self) -> str:
        """What the column holds: the kind of a :class:`service.formats.shards.index.Stored`."""
        return stored_as(_opened(self.shards[0]).schema.field(field_name(self.columns[0]))).kind

    @property
    def is_images(self) -> bool:
        return self.kind in {"image", "pixels"}

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W) of images."""
        return (len(self), *self.read(np.arange(1)).shape[1:])

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of images."""
        dtype: torch.dtype = self.read(np.arange(1)).dtype
        return dtype

    @cached_property
    def pixel_sums(self) -> "PixelSums":
        """Measured on images in one walk, as decoding is most of its time."""
        return PixelSums.of(self.evenly())

    def _column(self, name: str, dtype: DTypeLike) -> NDArray[Any]:
        """A field of values of one width."""

        def values(batch: pa.RecordBatch) -> NDArray[Any]:
            return np.frombuffer(batch.column(name).buffers()[1], dtype=dtype, count=batch.num_rows)

        found = np.empty(len(self), dtype=dtype)
        for places, part in self._of_batches(self.rows, [name], values):
            found[places] = part
        return found

    def _of_batches(
        self, rows: NDArray[np.int64], names: list[str], read: Callable[[Any], _Part]
    ) -> list[tuple[NDArray[np.int64], _Part]]:
        """What is read of some rows, of those of the fields that there are, with their places, batch by batch of the files."""
        found = []
        shard_of = np.searchsorted(self.ends, rows, side="right")
        for shard in np.unique(shard_of):
            there = np.flatnonzero(shard_of == shard)
            opened = _opened(self.shards[shard])
            inside = rows[there] - (self.ends[shard] - opened.ends[-1])
            batch_of = np.searchsorted(opened.ends, inside, side="right")
            for number in np.unique(batch_of):
                places = np.flatnonzero(batch_of == number)
                local = inside[places] - (opened.ends[number - 1] if number else 0)
                found.append((there[places], read(opened.take(number, local, names))))
        return found


@dataclass(frozen=True)
class PixelSums:
    """Sums over images (N, C, H, W), by channel, exact for 8-bit ones."""

    count: int
    """Pixels of a channel."""
    total: tuple[float, ...]
    squares: tuple[float, ...]
    """Of the pixels' distances from their mean."""
    low: float
    high: float

    @classmethod
    def of(cls, images: StoredInputs) -> "PixelSums":
        channels = images.shape[1]
        count, low, high = 0, float("inf"), float("-inf")
        total, squares = [0] * channels, [0] * channels
        means, spread = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
        for piece in images.pieces(64):
            least, most = torch.aminmax(piece)
            low, high = min(low, least.item()), max(high, most.item())
            number = piece.numel() // channels
            if piece.dtype == torch.uint8:
                values = piece.to(torch.int64)
                total = [a + b for a, b in zip(total, values.sum(dim=(0, 2, 3)).tolist(), strict=True)]
                squares = [a + b for a, b in zip(squares, values.square().sum(dim=(0, 2, 3)).tolist(), strict=True)]
            else:
                # Chan, Golub & LeVeque (1979): the one-pass variance loses all digits where the mean is large.
                values = piece.to(torch.float64)
                own = values.mean(dim=(0, 2, 3))
                delta = own - means
                spread += (values - own.view(-1, 1, 1)).square().sum(dim=(0, 2, 3)) + delta**2 * count * number / (count + number)
                means = means + delta * number / (count + number)
            count += number
        if images.dtype == torch.uint8:
            spreads = tuple(each - one * one / count for one, each in zip(total, squares, strict=True))
            return cls(count, tuple(map(float, total)), spreads, low, high)
        return cls(count, tuple((means * count).tolist()), tuple(spread.tolist()), low, high)


def stored_splits(folder: Path, columns: tuple[str, ...], reading: Reading, *, as_words: bool = False) -> dict[str, StoredInputs]:
    """The samples of each split of a folder of shards that were unpacked; texts ``as_words`` for a task that reads those."""
    index = read_index(folder)
    are_whole = list(columns) == index.input
    found = {
        name: replace(
            StoredInputs.of([shard_path(folder, each) for each in split.shards], columns, reading, are_whole=are_whole),
            as_words=as_words,
        )
        for name, split in index.splits.items()
    }
    images = [image for split in found.values() for image in split.of_each_size]
    channels = {image.channels for image in images}
    if len(channels) > 1 and len({(image.height, image.width) for image in images}) == 1:  # some are grey
        canvas = Canvas(images[0].height, images[0].width, common_channels(channels))
        found = {name: replace(split, canvas=canvas) for name, split in found.items()}
    return found


def _scattered(parts: Sequence[tuple[NDArray[np.int64], Tensor]], count: int) -> Tensor:
    whole = torch.empty(count, *parts[0][1].shape[1:], dtype=parts[0][1].dtype)
    for places, part in parts:
        whole[torch.from_numpy(places)] = part
    return whole


@lru_cache(maxsize=_MOST_OPEN)
def _opened(path: Path) -> MappedBatches:
    with path.open("rb") as file:
        return MappedBatches(file)
