"""A dataset file as one table: which reader takes it, what it holds, and its arrays."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import Chunk, ImageTable
from service.formats.label import Classes, LabelTally
from service.formats.npz import NpzTable
from service.formats.parquet import ParquetTable
from service.spec.data import DatasetInfo

DEFAULT_INPUT_COLUMN = "image"
DEFAULT_TARGET_COLUMN = "label"
MAX_UNPACKED_BYTES = 256 * 2**30
"""Most bytes that a file may declare for its arrays, or take as decoded images: a zip of a few MB can declare petabytes."""


@dataclass(frozen=True)
class SplitArrays:
    """One split's samples. N samples, C channels, H height, W width."""

    images: NDArray[np.generic]
    """(N, C, H, W), uint8 or float32."""
    labels: NDArray[np.int64]
    """(N,), class indices."""


@dataclass(frozen=True)
class ImageArrays:
    """A whole dataset file in memory."""

    splits: dict[str, SplitArrays]
    classes: list[str]


@dataclass(frozen=True)
class Sample:
    """One row, for people to look at."""

    split: str
    """The split that it is in."""
    row: int
    """Its number in the file, from 0."""
    label: str
    """The name of its class."""
    shape: tuple[int, int, int]
    """(height, width, channels)."""
    minimum: float
    """The least of the image's values."""
    mean: float
    """Their mean."""
    maximum: float
    """The greatest of them."""


def first_samples(
    path: Path,
    *,
    filename: str,
    input_column: str | None = None,
    target_column: str | None = None,
    num_rows: int,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> list[Sample]:
    """The first rows of a file that :func:`inspect_dataset` accepted; reads no more of it than those need."""
    samples: list[Sample] = []
    with _open(path, filename, input_column, target_column, max_unpacked_bytes) as table:
        for chunk in table.chunks():
            for row, image, label in zip(chunk.rows, chunk.images, chunk.labels, strict=True):
                if len(samples) == num_rows:
                    return samples
                channels, height, width = image.shape
                samples.append(
                    Sample(
                        split=chunk.split,
                        row=int(row),
                        label=str(label) if isinstance(label, str) or not table.class_names else table.class_names[int(label)],
                        shape=(height, width, channels),
                        minimum=float(image.min()),
                        mean=float(image.mean()),
                        maximum=float(image.max()),
                    )
                )
    return samples


def inspect_dataset(
    path: Path,
    *,
    filename: str,
    input_column: str | None = None,
    target_column: str | None = None,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> DatasetInfo:
    """Reads an npz or Parquet file through once, a few MB at a time, and tells what it holds.

    ``filename`` is the user's name of it, for messages.

    Raises:
        InvalidFile: it cannot be trained on; the text says which member, split or row, and what to change.
    """
    with _open(path, filename, input_column, target_column, max_unpacked_bytes) as table:
        tally = LabelTally(column=table.label_column, names=table.class_names)
        for chunk in table.chunks():
            tally.add(chunk.labels, split=chunk.split, rows=chunk.rows)
        classes = tally.settle()
        columns = table.columns()
        label = columns[table.label_column]
        columns[table.label_column] = label.model_copy(update={"num_classes": len(classes.names)})
        return DatasetInfo(
            task="image-classification",
            splits=table.splits,
            columns=columns,
            classes=classes.names,
            class_counts=classes.counts,
        )


def read_images(
    path: Path,
    *,
    filename: str | None = None,
    input_column: str | None = None,
    target_column: str | None = None,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> ImageArrays:
    """All samples of the file, each array allocated once.

    Raises:
        InvalidFile: as :func:`inspect_dataset`.
    """
    with _open(path, filename or path.name, input_column, target_column, max_unpacked_bytes) as table:
        tally = LabelTally(column=table.label_column, names=table.class_names)
        arrays: dict[str, SplitArrays] = {}
        filled = dict.fromkeys(table.splits, 0)
        for chunk in table.chunks():
            if chunk.split not in arrays:
                arrays[chunk.split] = _allocate(chunk, num_rows=table.splits[chunk.split])
            start = filled[chunk.split]
            stop = filled[chunk.split] = start + len(chunk.rows)
            arrays[chunk.split].images[start:stop] = chunk.images
            arrays[chunk.split].labels[start:stop] = tally.add(chunk.labels, split=chunk.split, rows=chunk.rows)
        classes: Classes = tally.settle()
    for split in arrays.values():
        split.labels[:] = classes.index_of_code[split.labels]
    return ImageArrays(splits={name: arrays[name] for name in table.splits}, classes=classes.names)


def _allocate(chunk: Chunk, *, num_rows: int) -> SplitArrays:
    images = np.empty((num_rows, *chunk.images.shape[1:]), dtype=chunk.images.dtype)
    return SplitArrays(images=images, labels=np.empty(num_rows, dtype=np.int64))


def _open(
    path: Path, filename: str, input_column: str | None, target_column: str | None, max_unpacked_bytes: int
) -> "AbstractContextManager[ImageTable]":
    with path.open("rb") as file:
        start = file.read(4)
    reader: type[NpzTable] | type[ParquetTable]
    if start[:2] == b"PK":
        reader = NpzTable
    elif start == b"PAR1":
        reader = ParquetTable
    else:
        what = "is empty" if not start else "is neither an npz nor a Parquet file (or its start is damaged)"
        raise InvalidFile(f"{filename!r} {what}; write one with numpy.savez_compressed or pyarrow.parquet.write_table")
    return reader(
        path,
        input_column=input_column or DEFAULT_INPUT_COLUMN,
        target_column=target_column or DEFAULT_TARGET_COLUMN,
        max_unpacked_bytes=max_unpacked_bytes,
    )
