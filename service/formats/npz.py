"""npz: a zip of ``.npy`` arrays, ``image`` and ``label`` or ``<split>_image`` and ``<split>_label``, read in bounded chunks.

Invariant: no array is ever held whole, nothing is unpickled, and no more bytes are unpacked than the file's directory declares,
which is checked against the limit first.
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
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import CHUNK_BYTES, Chunk, check_split_name
from service.formats.image import ImageShape, check_values, image_shape
from service.spec.data import Column

# What the standard library and NumPy raise on a broken archive or header; a UserWarning speaks of Python 2's headers.
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
_HOW_TO_SAVE = "write the file again with numpy.savez_compressed"


@dataclass(frozen=True)
class _Array:
    """One member, as its header describes it."""

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
    """An open npz file; see :class:`service.formats.chunk.ImageTable`."""

    class_names: list[str] | None = None

    def __init__(self, path: Path, *, input_column: str, target_column: str, max_unpacked_bytes: int) -> None:
        self.input_column, self.label_column = input_column, target_column
        with ExitStack() as stack:
            try:
                self._zip = stack.enter_context(zipfile.ZipFile(path))
            except _BROKEN as error:
                raise InvalidFile(f"the npz is broken or cut off: {error}; {_HOW_TO_SAVE}") from error
            arrays = self._read_headers(max_unpacked_bytes)
            self._images = _by_split(arrays, input_column)
            self._labels = _by_split(arrays, target_column)
            self._others = {name: array for name, array in arrays.items() if array not in self._taken()}
            self._check_pairs(arrays)
            self._shape = self._check_shapes()
            self._close = stack.pop_all()
        self.splits = {split: array.shape[0] for split, array in self._images.items()}

    def __enter__(self) -> "NpzTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def image_shape(self) -> ImageShape:
        return self._shape

    def columns(self) -> dict[str, Column]:
        image = next(iter(self._images.values()))
        shape = [self._shape.height, self._shape.width, self._shape.channels]
        return {
            self.input_column: Column(kind="image", dtype="uint8" if image.dtype == np.uint8 else "float32", shape=shape),
            self.label_column: Column(kind="label", dtype="int64"),
            **{name: Column(kind="other", dtype=str(array.dtype)) for name, array in self._others.items()},
        }

    def chunks(self) -> Iterator[Chunk]:
        for split, image in self._images.items():
            label = self._labels[split]
            rows_at_once = max(1, CHUNK_BYTES // max(image.row_bytes, 1))
            with self._open(image) as image_bytes, self._open(label) as label_bytes:
                for start in range(0, image.shape[0], rows_at_once):
                    count = min(rows_at_once, image.shape[0] - start)
                    images = _read_rows(image_bytes, image, count)
                    labels = _read_rows(label_bytes, label, count)
                    yield Chunk(
                        split=split,
                        rows=np.arange(start, start + count, dtype=np.int64),
                        images=self._shape.to_channels_first(check_values(images, place=image.place, first_row=start)),
                        labels=_as_int64(labels, place=label.place, first_row=start),
                    )
                # Reading to the end also lets the archive check its sums.
                for stream, array in ((image_bytes, image), (label_bytes, label)):
                    if _read(stream, array, 1):
                        raise InvalidFile(f"{array.place} holds more bytes than its shape {array.shape} says; {_HOW_TO_SAVE}")

    def _read_headers(self, max_unpacked_bytes: int) -> dict[str, _Array]:
        members = [member for member in self._zip.infolist() if member.filename.endswith(".npy")]
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
        return [*self._images.values(), *self._labels.values()]

    def _check_pairs(self, arrays: dict[str, _Array]) -> None:
        there = f"the file has {', '.join(repr(name) for name in list(arrays)[:20])}"
        if not self._images:
            raise InvalidFile(f"there is no array {self.input_column!r} (or '<split>_{self.input_column}'); {there}")
        if not self._labels:
            raise InvalidFile(f"there is no array {self.label_column!r} (or '<split>_{self.label_column}'); {there}")
        for split in sorted(self._images.keys() ^ self._labels.keys()):
            missing = self.input_column if split in self._labels else self.label_column
            raise InvalidFile(f"split {split!r} has no array {missing!r}; {there}")
        for split, image in self._images.items():
            label = self._labels[split]
            if label.dtype.kind not in "iu":
                raise InvalidFile(f"{label.place} is of {label.dtype}; labels are integers: save it with .astype('int64')")
            if len(label.shape) != 1:
                raise InvalidFile(
                    f"{label.place} has shape {label.shape}, not (rows,): a label is one integer; save it with .reshape(-1)"
                )
            if image.dtype != np.uint8 and not (image.dtype.kind == "f" and image.dtype.itemsize <= 8):
                raise InvalidFile(
                    f"{image.place} is of {image.dtype}; pixels are uint8 or float16, float32, float64: use .astype('uint8')"
                )
            if len(image.shape) not in (3, 4):
                raise InvalidFile(
                    f"{image.place} has shape {image.shape}; it is (rows, height, width), (rows, height, width, channels) or "
                    "(rows, channels, height, width)"
                )
            if image.shape[0] != label.shape[0]:
                raise InvalidFile(
                    f"{image.place} has {image.shape[0]} rows and {label.place} {label.shape[0]}; each image takes one label"
                )
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


def _by_split(arrays: dict[str, _Array], column: str) -> dict[str, _Array]:
    found: dict[str, _Array] = {}
    for name, array in arrays.items():
        if name == column:
            split = "train"
        elif name.endswith(f"_{column}"):
            split = check_split_name(name.removesuffix(f"_{column}"))
        else:
            continue
        if split in found:
            raise InvalidFile(f"arrays {column!r} and 'train_{column}' are both the train split; keep one")
        found[split] = array
    return found


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


def _as_int64(labels: NDArray[np.generic], *, place: str, first_row: int) -> NDArray[np.int64]:
    found = labels.astype(np.int64)
    if (beyond := found.astype(labels.dtype) != labels).any() or (beyond := (labels.dtype.kind == "u") & (found < 0)).any():
        raise InvalidFile(f"{place}, row {first_row + int(np.argmax(beyond))}: the label is beyond 64 bits")
    return found
