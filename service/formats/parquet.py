"""Parquet: an image column, a label column, and an optional ``split`` column, read batch by batch.

An image is the bytes of a PNG or JPEG, plain or as HuggingFace's ``{bytes, path}``, or nested lists of numbers. Invariant: a few
rows are held at once; every row has the first row's shape.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import CHUNK_BYTES, Chunk, check_split_name
from service.formats.image import ImageShape, check_values, decode_image, image_shape
from service.formats.label import MAX_CLASSES
from service.spec.data import Column

SPLIT_COLUMN = "split"
MAX_SPLITS = 16
_MOST_ROWS_AT_ONCE = 1024
_WIDEST_NUMBER_BYTES = 8
# Arrow reports a broken file as one of its own errors, most of them also a ValueError, or as an OSError.
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, KeyError, IndexError, TypeError)


class ParquetTable:
    """An open Parquet file; see :class:`service.formats.chunk.ImageTable`."""

    def __init__(self, path: Path, *, input_column: str, target_column: str, max_unpacked_bytes: int) -> None:
        self.input_column, self.label_column = input_column, target_column
        try:
            self._file = pq.ParquetFile(path)
            self._schema: pa.Schema = self._file.schema_arrow
            self._num_rows: int = self._file.metadata.num_rows
        except _BROKEN as error:
            raise InvalidFile(f"the Parquet file is broken or cut off: {str(error)[:200]}") from error
        try:
            self._check_columns()
            self._splits_named = SPLIT_COLUMN in self._schema.names and _is_string(self._schema.field(SPLIT_COLUMN).type)
            self.class_names = self._read_class_names()
            self.splits = self._count_splits()
            self._shape, self._dtype = self._read_shape()
            self._check_unpacked(max_unpacked_bytes)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ParquetTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def image_shape(self) -> ImageShape:
        return self._shape

    def columns(self) -> dict[str, Column]:
        shape = self._shape
        found: dict[str, Column] = {}
        for field in self._schema:
            if field.name == self.input_column:
                sides = [shape.height, shape.width, shape.channels]
                found[field.name] = Column(kind="image", dtype=self._dtype, shape=sides)
            else:
                is_label = field.name == self.label_column
                found[field.name] = Column(kind="label" if is_label else "other", dtype=str(field.type)[:200])
        return found

    def chunks(self) -> Iterator[Chunk]:
        names = [self.input_column, self.label_column] + ([SPLIT_COLUMN] if self._splits_named else [])
        rows_at_once = max(1, min(_MOST_ROWS_AT_ONCE, CHUNK_BYTES // (self._shape.num_values * _WIDEST_NUMBER_BYTES)))
        for first_row, batch in self._batches(names, rows_at_once=rows_at_once):
            rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
            images = self._read_images(batch.column(self.input_column), first_row=first_row)
            labels = self._read_labels(batch.column(self.label_column), first_row=first_row)
            if not self._splits_named:
                yield Chunk(split="train", rows=rows, images=images, labels=labels)
                continue
            splits = np.array(self._read_strings(batch.column(SPLIT_COLUMN), SPLIT_COLUMN, first_row=first_row))
            for split in dict.fromkeys(splits.tolist()):
                chosen = np.flatnonzero(splits == split)
                some = labels[chosen] if isinstance(labels, np.ndarray) else [labels[index] for index in chosen]
                yield Chunk(split=split, rows=rows[chosen], images=images[chosen], labels=some)

    def _batches(self, names: list[str], *, rows_at_once: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each batch with the number of its first row."""
        first_row = 0
        try:
            for batch in self._file.iter_batches(batch_size=rows_at_once, columns=names, use_threads=False):
                batch.validate(full=True)
                yield first_row, batch
                first_row += batch.num_rows
        except _BROKEN as error:
            raise InvalidFile(f"the Parquet file is broken: {str(error)[:200]}") from error
        if first_row < self._num_rows:
            raise InvalidFile(f"the Parquet file is broken: it declares {self._num_rows} rows and holds {first_row}")

    def _check_columns(self) -> None:
        there = f"its columns are {', '.join(repr(name) for name in self._schema.names[:50]) or 'none'}"
        if len(set(self._schema.names)) != len(self._schema.names):
            raise InvalidFile(f"two columns have one name; {there}")
        for role, name in (("input", self.input_column), ("target", self.label_column)):
            if name not in self._schema.names:
                raise InvalidFile(f"the file has no {role} column {name!r}; {there}")
        if self.input_column == self.label_column:
            raise InvalidFile(f"the input and the target are both column {self.input_column!r}; {there}")
        label = self._schema.field(self.label_column).type
        if not (pa.types.is_integer(label) or _is_string(label)):
            hint = "; missing labels make pandas write integers as floats: drop those rows" if pa.types.is_floating(label) else ""
            raise InvalidFile(
                f"column {self.label_column!r} is of {str(label)[:100]}; labels are integers from 0 or strings{hint}"
            )
        if self._num_rows == 0:
            raise InvalidFile("the file has no rows")

    def _read_class_names(self) -> list[str] | None:
        """The names in HuggingFace's metadata, for a label column of integers."""
        if not pa.types.is_integer(self._schema.field(self.label_column).type):
            return None
        try:
            metadata = json.loads((self._schema.metadata or {})[b"huggingface"])
            names = metadata["info"]["features"][self.label_column]["names"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return None
        usable = isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        return names if usable and 2 <= len(names) <= MAX_CLASSES else None

    def _count_splits(self) -> dict[str, int]:
        if not self._splits_named:
            return {"train": self._num_rows}
        counts: Counter[str] = Counter()
        for first_row, batch in self._batches([SPLIT_COLUMN], rows_at_once=65_536):
            counts.update(self._read_strings(batch.column(SPLIT_COLUMN), SPLIT_COLUMN, first_row=first_row))
            if len(counts) > MAX_SPLITS:
                raise InvalidFile(
                    f"column {SPLIT_COLUMN!r} names more than {MAX_SPLITS} splits: it says for each row train, validation or test"
                )
        return {check_split_name(name): count for name, count in counts.items()}

    def _read_shape(self) -> tuple[ImageShape, Literal["uint8", "float32"]]:
        """The first row's; every other is held against it."""
        for _, batch in self._batches([self.input_column], rows_at_once=1):
            images = self._read_raw(batch.column(0), first_row=0)
            self._stored_shape = images.shape[1:]
            shape = image_shape(self._stored_shape, place=f"column {self.input_column!r}, row 0")
            return shape, "uint8" if images.dtype == np.uint8 else "float32"
        raise InvalidFile("the Parquet file is broken: it declares rows and holds none")

    def _check_unpacked(self, max_unpacked_bytes: int) -> None:
        decoded = self._num_rows * self._shape.num_values * (1 if self._dtype == "uint8" else 4)
        if decoded > max_unpacked_bytes:
            raise InvalidFile(f"unpacked, the images are {decoded:,} bytes; at most {max_unpacked_bytes:,} may be")

    def _read_images(self, column: pa.Array, *, first_row: int) -> NDArray[np.generic]:
        images = self._read_raw(column, first_row=first_row)
        if images.shape[1:] != self._stored_shape:
            raise _another_shape(f"column {self.input_column!r}", first_row, images.shape[1:], 0, self._stored_shape)
        return self._shape.to_channels_first(images)

    def _read_raw(self, column: pa.Array, *, first_row: int) -> NDArray[np.generic]:
        """(N, …) as each image is stored, uint8 or float32."""
        place = f"column {self.input_column!r}"
        if pa.types.is_struct(column.type):
            if "bytes" not in [field.name for field in column.type]:
                raise InvalidFile(f"{place} is a struct without 'bytes'; store the PNG or JPEG itself, as {{bytes, path}}")
            _refuse_nulls(column, place=place, first_row=first_row)
            column = pc.struct_field(column, "bytes")
        if _is_binary(column.type):
            _refuse_nulls(column, place=f"{place} (the image's bytes)", first_row=first_row)
            return _decode_all(column, place=place, first_row=first_row)
        if _is_list(column.type):
            numbers = _nested_numbers(column, place=place, first_row=first_row)
            return check_values(numbers, place=place, first_row=first_row)
        raise InvalidFile(
            f"{place} is of {str(column.type)[:100]}; images are the bytes of a PNG or JPEG, or nested lists of numbers"
        )

    def _read_labels(self, column: pa.Array, *, first_row: int) -> NDArray[np.int64] | list[str]:
        if not pa.types.is_integer(column.type):
            return self._read_strings(column, self.label_column, first_row=first_row)
        place = f"column {self.label_column!r}"
        _refuse_nulls(column, place=place, first_row=first_row)
        try:
            return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)
        except pa.ArrowInvalid as error:
            raise InvalidFile(f"{place}, row {first_row} or later: a label is beyond 64 bits: {error}") from error

    def _read_strings(self, column: pa.Array, name: str, *, first_row: int) -> list[str]:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        _refuse_nulls(column, place=f"column {name!r}", first_row=first_row)
        strings: list[str] = column.to_pylist()
        return strings


def _refuse_nulls(column: pa.Array, *, place: str, first_row: int) -> None:
    if column.null_count:
        row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise InvalidFile(f"{place}, row {row}: there is no value; fill it or drop the row")


def _decode_all(column: pa.Array, *, place: str, first_row: int) -> NDArray[np.generic]:
    images: list[NDArray[np.uint8]] = []
    for row, data in enumerate(column, start=first_row):
        image = decode_image(data.as_buffer(), place=f"{place}, row {row}")
        if images and image.shape != images[0].shape:
            raise _another_shape(place, row, image.shape, first_row, images[0].shape)
        images.append(image)
    return np.stack(images)


def _nested_numbers(column: pa.Array, *, place: str, first_row: int) -> NDArray[np.generic]:
    shape = [len(column)]
    while _is_list(column.type):
        per_row = math.prod(shape[1:])
        if column.null_count:
            row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False))) // per_row
            raise InvalidFile(f"{place}, row {row}: a list is missing; fill it or drop the row")
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if (differs := lengths != lengths[0]).any():
            row = first_row + int(np.argmax(differs)) // per_row
            raise InvalidFile(f"{place}, row {row}: its lists have not the lengths of row {first_row}; make all images one shape")
        shape.append(int(lengths[0]))
        column = column.flatten()
        if shape[-1] == 0:
            raise InvalidFile(f"{place}, row {first_row}: an empty list; an image has pixels")
        if len(shape) > 4:
            raise InvalidFile(f"{place}: lists nested more than three deep are no image")
    if column.null_count:
        row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False))) // math.prod(shape[1:])
        raise InvalidFile(f"{place}, row {row}: a number is missing; fill it or drop the row")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidFile(f"{place} holds lists of {str(column.type)[:100]}; pixels are numbers")
    numbers: NDArray[np.generic] = column.to_numpy(zero_copy_only=False).reshape(shape)
    if numbers.dtype.kind == "f" or numbers.dtype == np.uint8:
        return numbers
    # Lists from Python come as 64-bit integers, whatever the pixels were.
    outside = ((numbers < 0) | (numbers > 255)).reshape(len(numbers), -1).any(axis=1)  # type: ignore[operator]
    if outside.any():
        raise InvalidFile(
            f"{place}, row {first_row + int(np.argmax(outside))}: a pixel is not in 0 to 255; store other ranges as floats"
        )
    return numbers.astype(np.uint8)


def _another_shape(place: str, row: int, shape: tuple[int, ...], first_row: int, first_shape: tuple[int, ...]) -> InvalidFile:
    wrong, usual = ("x".join(map(str, sides)) for sides in (shape, first_shape))
    return InvalidFile(
        f"{place}, row {row}: the image is {wrong}, and row {first_row} is {usual}; make all images one size and one mode"
    )


def _is_string(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_string(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _is_binary(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))
