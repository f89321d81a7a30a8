"""The images of a Parquet column: the bytes of image files, plain or as Hugging Face's ``{bytes, path}``, or nested lists.

Invariant: every nested list has the shape of the first; files may differ.
"""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import CHUNK_BYTES
from service.formats.columns.arrow import (
    HOW_TO_EMBED,
    file_bytes,
    is_binary,
    is_list,
    is_string,
    refuse_paths,
    type_name,
    where_null,
)
from service.formats.media.check import MediaFiles
from service.formats.media.encoded import EncodedImage
from service.formats.media.image import ImageShape, check_values, image_shape
from service.spec.data import Column
from service.spec.warning_message import WarningMessage

_MOST_ROWS_AT_ONCE = 1024
_WIDEST_NUMBER_BYTES = 8


class ImageColumn:
    """See :class:`service.formats.readers.parquet.InputColumn`."""

    def __init__(self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int, skip_broken: bool) -> None:
        self._name = name
        self._stored_shape: tuple[int, ...] = ()
        self._shape: ImageShape | None = None
        self.files = MediaFiles(max_unpacked_bytes=max_unpacked_bytes, skip_broken=skip_broken)
        images = self._read_raw(first, first_row=0)
        if not isinstance(images, np.ndarray):
            self.files = MediaFiles(max_unpacked_bytes=max_unpacked_bytes, skip_broken=skip_broken)
            num_values = next((image.decoded_bytes for image in images if image is not None), 1)
        else:
            self._shape = image_shape(images.shape[1:], place=f"column {name!r}, row 0")
            self._stored_shape = images.shape[1:]
            self._dtype = "uint8" if images.dtype == np.uint8 else "float32"
            num_values = self._shape.num_values
            decoded = num_rows * num_values * images.dtype.itemsize
            if decoded > max_unpacked_bytes:
                raise InvalidFile(f"unpacked, the images are {decoded:,} bytes; at most {max_unpacked_bytes:,} may be")
        self.rows_at_once = max(1, min(_MOST_ROWS_AT_ONCE, CHUNK_BYTES // (num_values * _WIDEST_NUMBER_BYTES)))

    def describe(self) -> Column:
        if self._shape is None:
            return self.files.column()
        return Column(kind="image", dtype=self._dtype, shape=[self._shape.height, self._shape.width, self._shape.channels])

    def warnings(self) -> list[WarningMessage]:
        return self.files.warnings() if self._shape is None else []

    def read(self, column: pa.Array, *, first_row: int) -> NDArray[np.generic] | list[EncodedImage | None]:
        """Files, None for one that is left out; or arrays (N, C, H, W)."""
        images = self._read_raw(column, first_row=first_row)
        if not isinstance(images, np.ndarray) or self._shape is None:
            return images
        if images.shape[1:] != self._stored_shape:
            raise _another_shape(f"column {self._name!r}", first_row, images.shape[1:], self._stored_shape)
        return self._shape.to_channels_first(images)

    def _read_raw(self, column: pa.Array, *, first_row: int) -> NDArray[np.generic] | list[EncodedImage | None]:
        """Reads files, or arrays (N, …) in their stored layout, uint8 or float32."""
        place = f"column {self._name!r}"
        if pa.types.is_struct(column.type):
            if "bytes" not in [field.name for field in column.type]:
                raise InvalidFile(f"{place} is a struct without 'bytes'; store the image file itself, as {{bytes, path}}")
            refuse_paths(column, place=place, first_row=first_row)
            column = pc.struct_field(column, "bytes")
        if is_binary(column.type):
            rows = enumerate(file_bytes(column), start=first_row)
            return [self.files.image(data, place=f"{place}, row {row}") for row, data in rows]
        if is_list(column.type):
            numbers = _nested_numbers(column, place=place, first_row=first_row)
            return check_values(numbers, place=place, first_row=first_row)
        what = f"{place} is of {type_name(column.type)}; images are the bytes of an image file, or nested lists of numbers"
        raise InvalidFile(f"{what}; of paths, {HOW_TO_EMBED}" if is_string(column.type) else what)


def _nested_numbers(column: pa.Array, *, place: str, first_row: int) -> NDArray[np.generic]:
    shape = [len(column)]
    while is_list(column.type):
        per_row = math.prod(shape[1:])
        if column.null_count:
            row = first_row + int(np.argmax(where_null(column))) // per_row
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
        row = first_row + int(np.argmax(where_null(column))) // math.prod(shape[1:])
        raise InvalidFile(f"{place}, row {row}: a number is missing; fill it or drop the row")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidFile(f"{place} holds lists of {type_name(column.type)}; pixels are numbers")
    numbers: NDArray[np.generic] = column.to_numpy(zero_copy_only=False).reshape(shape)
    if numbers.dtype.kind == "f" or numbers.dtype == np.uint8:
        return numbers
    # Arrow stores Python lists of integers as 64-bit integers, whatever the pixels were.
    outside = ((numbers < 0) | (numbers > 255)).reshape(len(numbers), -1).any(axis=1)  # type: ignore[operator]
    if outside.any():
        raise InvalidFile(
            f"{place}, row {first_row + int(np.argmax(outside))}: a pixel is not in 0 to 255; store other ranges as floats"
        )
    return numbers.astype(np.uint8)


def _another_shape(place: str, row: int, shape: tuple[int, ...], first_shape: tuple[int, ...]) -> InvalidFile:
    wrong, usual = ("x".join(map(str, sides)) for sides in (shape, first_shape))
    return InvalidFile(
        f"{place}, row {row}: the image is {wrong}, and row 0 is {usual}; arrays are of one shape: make all images one size and "
        "one mode, or store them as image files (PNG)"
    )
