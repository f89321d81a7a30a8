"""npz: a zip of ``.npy`` arrays, ``image`` and ``label`` or ``<split>_image`` and ``<split>_label``, read in bounded chunks.

A target of integers, booleans or strings is a label, one of floats a number. A split without an array of a target has no label
at all.

Invariant: no array is ever in memory as a whole, nothing is unpickled, and no more bytes are unpacked than the zip's directory
declares, which is checked against the limit first.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import (
    CHUNK_BYTES,
    Chunk,
    ColumnSelection,
    TargetValues,
    check_split_name,
    refuse_lacking,
)
from service.formats.media.image import ImageShape, check_values, image_shape
from service.formats.targets.label import BOOLEANS, HOW_TO_REGRESS, MAX_CLASS_NAME_CHARACTERS, class_indices
from service.formats.targets.list_label import check_width
from service.spec.data import Column
from service.spec.tasks import TargetKind
from service.spec.warning_message import WarningMessage

# What the standard library and NumPy raise for a broken archive or header; the UserWarning is about headers of Python 2.
_BROKEN = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    UserWarning,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_TYPES = {"i": "int64", "u": "int64", "b": "bool", "U": "string", "f": "float64"}
"""The types that a target may have, by NumPy's letter."""
_HOW_TO_SAVE = "write the file again with numpy.savez_compressed"


@dataclass(frozen=True)
class _Array:
    """The header of one array."""

    member: str
    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"

    @property
    def place(self) -> str:
        return f"array {self.member.removesuffix('.npy')!r}"

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class NpzTable:
    """An open npz file; see :class:`service.formats.chunk.DataTable`."""

    def __init__(self, path: Path, selection: ColumnSelection) -> None:
        self.warnings: list[WarningMessage] = []
        with ExitStack() as stack:
            try:
                self._zip = stack.enter_context(zipfile.ZipFile(path))
            except _BROKEN as error:
                raise InvalidFile(f"the npz is broken or cut off: {error}; {_HOW_TO_SAVE}") from error
            arrays = self._read_headers(selection.max_unpacked_bytes)
            by_column = _by_split(arrays, selection.columns)
            self._images = by_column.pop(selection.input_column)
            there = f"the file has {', '.join(repr(name) for name in list(arrays)[:20])}"
            self.lacking = tuple(column for column, by_split in by_column.items() if not by_split)
            refuse_lacking(selection, self.lacking, arrays, there=there)
            self._selection = selection = selection.without(self.lacking)
            self._targets = {column: by_column[column] for column in selection.target_columns}
            self._others = {name: array for name, array in arrays.items() if array not in self._taken()}
            self._check_pairs(there)
            self._shape = self._check_shapes()
            self.targets = {column: _target_kind(by_split) for column, by_split in self._targets.items()}
            labels = [column for column, kind in self.targets.items() if kind == "label"]
            self.class_names = {column: list(BOOLEANS) for column in labels if self._type(column) == "bool"}
            self._close = stack.pop_all()
        self.splits = {split: array.shape[0] for split, array in self._images.items()}

    def __enter__(self) -> "NpzTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def columns(self) -> dict[str, Column]:
        image = next(iter(self._images.values()))
        shape = [self._shape.height, self._shape.width, self._shape.channels]
        return {
            self._selection.input_column: Column(
                kind="image", dtype="uint8" if image.dtype == np.uint8 else "float32", shape=shape
            ),
            **{column: Column(kind=kind, dtype=self._type(column)) for column, kind in self.targets.items()},
            **{name: Column(kind="other", dtype=str(array.dtype)) for name, array in self._others.items()},
        }

    def chunks(self) -> Iterator[Chunk]:
        for split, image in self._images.items():
            targets = {column: by_split[split] for column, by_split in self._targets.items() if split in by_split}
            arrays = [image, *targets.values()]
            rows_at_once = max(1, CHUNK_BYTES // max(sum(array.row_bytes for array in arrays), 1))
            with ExitStack() as stack:
                streams = [stack.enter_context(self._open(array)) for array in arrays]
                for start in range(0, image.shape[0], rows_at_once):
                    count = min(rows_at_once, image.shape[0] - start)
                    images, *values = (_read_rows(stream, array, count) for stream, array in zip(streams, arrays, strict=True))
                    read = {
                        column: self._target_values(of_target, array=array, first_row=start)
                        for (column, array), of_target in zip(targets.items(), values, strict=True)
                    }
                    yield Chunk(
                        split=split,
                        rows=np.arange(start, start + count, dtype=np.int64),
                        inputs=self._shape.to_channels_first(check_values(images, place=image.place, first_row=start)),
                        targets={column: read.get(column, _missing(kind, count)) for column, kind in self.targets.items()},
                    )
                # Reading to the end also lets zipfile verify the CRC.
                for stream, array in zip(streams, arrays, strict=True):
                    if _read(stream, array, 1):
                        raise InvalidFile(f"{array.place} holds more bytes than its shape {array.shape} says; {_HOW_TO_SAVE}")

    def _target_values(self, values: NDArray[np.generic], *, array: _Array, first_row: int) -> TargetValues:
        if values.ndim == 2:
            return cast(list[Any], values.tolist())
        if values.dtype.kind == "f":
            return values.astype(np.float64)
        if values.dtype.kind == "U":
            names: list[str] = values.tolist()
            return [name if name and not name.isspace() else None for name in names]
        return class_indices(values, place=lambda index: f"{array.place}, row {first_row + index}")

    def _type(self, column: str) -> str:
        return _TYPES[next(iter(self._targets[column].values())).dtype.kind]

    def _read_headers(self, max_unpacked_bytes: int) -> dict[str, _Array]:
        members = [member for member in self._zip.infolist() if member.filename.endswith(".npy")]
        others = [member.filename for member in self._zip.infolist() if not member.filename.endswith(".npy")]
        if members and others:
            names = f"{', '.join(repr(name)[:100] for name in others[:10])}{', …' if len(others) > 10 else ''}"
            message = f"{len(others):,} files of the npz are no arrays and are left out: {names}"
            self.warnings.append(WarningMessage(code="files_skipped", message=message))
        if not members:
            raise InvalidFile("the zip holds no arrays; an npz has 'image.npy' and 'label.npy', as numpy.savez writes them")
        declared = sum(member.file_size for member in members)
        if declared > max_unpacked_bytes:
            raise InvalidFile(f"unpacked, the arrays are {declared:,} bytes; at most {max_unpacked_bytes:,} may be")
        arrays: dict[str, _Array] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise InvalidFile(f"the npz holds two arrays called {name!r}; {_HOW_TO_SAVE}")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InvalidFile(f"array {name!r} is compressed in a way that numpy never writes; {_HOW_TO_SAVE}")
            arrays[name] = self._read_header(member)
        return arrays

    def _read_header(self, member: zipfile.ZipInfo) -> _Array:
        name = member.filename.removesuffix(".npy")
        try:
            with self._zip.open(member) as stream:
                version = npy.read_magic(stream)
                if version not in ((1, 0), (2, 0)):
                    raise InvalidFile(f"array {name!r} has fields with names; save plain arrays, one for each column")
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, fortran_order, dtype = read(stream)
                header_bytes = stream.tell()
        except _BROKEN as error:
            raise InvalidFile(f"array {name!r} is broken: {str(error)[:200]}; {_HOW_TO_SAVE}") from error
        if dtype.hasobject:
            raise InvalidFile(
                f"array {name!r} holds Python objects, which are pickled and never loaded; save it as numbers of one shape, "
                f"for instance numpy.stack(images).astype('uint8')"
            )
        if any(side < 0 for side in shape):
            raise InvalidFile(f"array {name!r} is broken: its shape is {shape}; {_HOW_TO_SAVE}")
        if fortran_order and len(shape) > 1:
            raise InvalidFile(f"array {name!r} is stored column by column; save numpy.ascontiguousarray({name}) instead")
        needed = header_bytes + math.prod(shape) * dtype.itemsize
        if needed != member.file_size:
            raise InvalidFile(
                f"array {name!r} is cut off or broken: {shape} of {dtype} takes {needed:,} bytes, not {member.file_size:,}; "
                f"{_HOW_TO_SAVE}"
            )
        return _Array(member=member.filename, shape=shape, dtype=dtype)

    def _taken(self) -> list[_Array]:
        return [array for by_split in (self._images, *self._targets.values()) for array in by_split.values()]

    def _check_pairs(self, there: str) -> None:
        column = self._selection.input_column
        if not self._images:
            raise InvalidFile(f"there is no array {column!r} (or '<split>_{column}'); {there}")
        splits = {split for by_split in self._targets.values() for split in by_split}
        if missing := sorted(splits - self._images.keys()):
            raise InvalidFile(f"split {missing[0]!r} has no array {column!r}; {there}")
        for image in self._images.values():
            _check_images(image)
        for split, image in self._images.items():
            for by_split in self._targets.values():
                if split in by_split:
                    _check_target(by_split[split], image)
            if image.shape[0] == 0:
                raise InvalidFile(f"split {split!r} has no rows; leave it out or fill it")

    def _check_shapes(self) -> ImageShape:
        first, *others = self._images.values()
        for image in others:
            if image.shape[1:] != first.shape[1:] or (image.dtype == np.uint8) != (first.dtype == np.uint8):
                raise InvalidFile(
                    f"{image.place} holds images of {image.shape[1:]} and {image.dtype}, {first.place} of {first.shape[1:]} and "
                    f"{first.dtype}; all splits take one shape and one type"
                )
        return image_shape(first.shape[1:], place=f"one image of {first.place}")

    def _open(self, array: _Array) -> IO[bytes]:
        try:
            stream = self._zip.open(array.member)
            version = npy.read_magic(stream)
            (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
        except _BROKEN as error:
            raise InvalidFile(f"{array.place} is broken: {str(error)[:200]}; {_HOW_TO_SAVE}") from error
        return stream


def _by_split(arrays: dict[str, _Array], columns: tuple[str, ...]) -> dict[str, dict[str, _Array]]:
    """The arrays of each selected column, by split."""
    found: dict[str, dict[str, _Array]] = {column: {} for column in columns}
    # Of 'label' and 'top_label', the array 'train_top_label' belongs to the longer one.
    longest_first = sorted(columns, key=len, reverse=True)
    for name, array in arrays.items():
        column = next((column for column in longest_first if name == column or name.endswith(f"_{column}")), None)
        if column is None:
            continue
        split = "train" if name == column else check_split_name(name.removesuffix(f"_{column}"))
        if split in found[column]:
            raise InvalidFile(f"arrays {column!r} and 'train_{column}' are both the train split; keep one")
        found[column][split] = array
    return found


def _check_images(image: _Array) -> None:
    if image.dtype != np.uint8 and not (image.dtype.kind == "f" and image.dtype.itemsize <= 8):
        raise InvalidFile(
            f"{image.place} is of {image.dtype}; pixels are uint8 or float16, float32, float64: use .astype('uint8')"
        )
    if len(image.shape) not in (3, 4):
        raise InvalidFile(
            f"{image.place} has shape {image.shape}; it is (rows, height, width), (rows, height, width, channels) or "
            "(rows, channels, height, width)"
        )


def _check_target(target: _Array, image: _Array) -> None:
    kind = target.dtype.kind
    if kind not in _TYPES or target.dtype.itemsize > (4 * MAX_CLASS_NAME_CHARACTERS if kind == "U" else 8):
        raise InvalidFile(
            f"{target.place} is of {target.dtype}; labels are integers or strings: save it with .astype('int64') or "
            f".astype('str'); {HOW_TO_REGRESS}"
        )
    if len(target.shape) != 1 and (len(target.shape) != 2 or target.shape[1] < 2 or kind == "U"):
        name = target.member.removesuffix(".npy")
        remedy = f"save {name}.reshape(-1)" if math.prod(target.shape[1:]) == 1 else "save one number for each class"
        raise InvalidFile(
            f"{target.place} has shape {target.shape}, not (rows,): a label is one integer, or a list of 0 and 1 or of "
            f"probabilities for the classes, (rows, classes); {remedy}"
        )
    if len(target.shape) == 2:
        check_width(target.shape[1], place=target.place)
    if image.shape[0] != target.shape[0]:
        raise InvalidFile(
            f"{image.place} has {image.shape[0]} rows and {target.place} {target.shape[0]}; each image takes one label"
        )


def _target_kind(by_split: dict[str, _Array]) -> TargetKind:
    first, *others = by_split.values()
    for other in others:
        if _TYPES[other.dtype.kind] != _TYPES[first.dtype.kind]:
            raise InvalidFile(
                f"{other.place} is of {other.dtype} and {first.place} of {first.dtype}: save integers (labels) in every split, "
                "or floats (numbers)"
            )
        if other.shape[1:] != first.shape[1:]:
            raise InvalidFile(
                f"{other.place} has shape {other.shape} and {first.place} {first.shape}: save one form in every split"
            )
    if len(first.shape) == 2:
        return "labels"
    return "number" if first.dtype.kind == "f" else "label"


def _missing(kind: TargetKind, count: int) -> TargetValues:
    if kind == "labels":
        return [None] * count
    return np.full(count, np.nan) if kind == "number" else np.full(count, -1, dtype=np.int64)


def _read_rows(stream: IO[bytes], array: _Array, count: int) -> NDArray[np.generic]:
    size = count * array.row_bytes
    data = _read(stream, array, size)
    if len(data) != size:
        raise InvalidFile(f"{array.place} is cut off; {_HOW_TO_SAVE}")
    values = np.frombuffer(data, dtype=array.dtype).reshape(count, *array.shape[1:])
    return values.astype(array.dtype.newbyteorder("="), copy=False)


def _read(stream: IO[bytes], array: _Array, size: int) -> bytes:
    try:
        return stream.read(size)
    except _BROKEN as error:
        raise InvalidFile(f"{array.place} is broken: {str(error)[:200]}; {_HOW_TO_SAVE}") from error
