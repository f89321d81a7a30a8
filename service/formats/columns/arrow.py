"""Arrow columns: their types, nulls and strings."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import InvalidFile


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type of the same values without dictionaries, views and extensions."""
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return plain_type(type_.storage_type)
    if pa.types.is_string_view(type_):
        return pa.large_string()
    if pa.types.is_binary_view(type_):
        return pa.large_binary()
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(plain_type(field.type)) for field in type_])
    for is_list_type, list_of in _LISTS:
        if is_list_type(type_):
            return list_of(type_.value_field.with_type(plain_type(type_.value_type)))
    return type_


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_list_view, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_large_list_view, pa.large_list),
)


def plain(column: pa.Array) -> pa.Array:
    """The same values in their plain type."""
    type_ = plain_type(column.type)
    return column if type_ == column.type else column.cast(type_)


def type_name(type_: pa.DataType) -> str:
    """What a type is called, for people: the names of a struct's fields are in it, which may hold anything."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(type_)[:100])


def is_string(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_binary(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def where_null(column: pa.Array) -> NDArray[np.bool_]:
    """A mask (N,) of the nulls of a column."""
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def refuse_nulls(column: pa.Array, *, place: str, first_row: int) -> None:
    """Raises InvalidFile, with the first such row, if a value is null."""
    if column.null_count:
        row = first_row + int(np.argmax(where_null(column)))
        raise InvalidFile(f"{place}, row {row}: there is no value; fill it or drop the row")


HOW_TO_EMBED = "store the files themselves, for each row {'bytes': pathlib.Path(path).read_bytes(), 'path': path}"


def refuse_paths(column: pa.StructArray, *, place: str, first_row: int) -> None:
    """Raises InvalidFile, with the first such row, if a ``{bytes, path}`` names a file on somebody's disk and lacks its bytes."""
    missing = where_null(pc.struct_field(column, "bytes"))
    if not missing.any() or "path" not in [field.name for field in column.type]:
        return
    row = int(np.argmax(missing))
    named = column[row].as_py()["path"]
    if named:
        raise InvalidFile(f"{place}, row {first_row + row}: the path {named!r:.200} without the file's bytes; {HOW_TO_EMBED}")


def file_bytes(column: pa.Array) -> Iterator[bytes | None]:
    """The values of a binary column one after another, None for null."""
    for value in column:
        buffer = value.as_buffer()
        yield None if buffer is None else buffer.to_pybytes()


def strings(column: pa.Array) -> list[str | None]:
    """The values of a column of strings, None for null."""
    found: list[str | None] = column.to_pylist()
    return found


def whole_strings(column: pa.Array, *, name: str, first_row: int) -> list[str]:
    """The values of a column of strings without nulls. Raises InvalidFile if there is one."""
    refuse_nulls(column, place=f"column {name!r}", first_row=first_row)
    return [text for text in strings(column) if text is not None]


def check_batch(batch: pa.RecordBatch, *, first_row: int) -> None:
    """Checks that all offsets are in bounds and all strings are UTF-8. ``first_row`` is the first row's number, for messages.

    Raises:
        InvalidFile: a string is not UTF-8.
        pa.ArrowException: the batch is invalid otherwise.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if is_string(column.type) and not pa.types.is_dictionary(column.type):
                _refuse_other_encodings(column.view(_bytes_type(column.type)), name=name, first_row=first_row)
            elif pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
                words = pa.ListArray.from_arrays(column.offsets, column.values.view(pa.binary()))
                _refuse_other_encodings(words, name=name, first_row=first_row)
        raise


def _refuse_other_encodings(raw: pa.Array, *, name: str, first_row: int) -> None:
    """Raises InvalidFile at the first row whose bytes, or lists of bytes, are no UTF-8."""
    raw.validate(full=True)
    for row, value in enumerate(raw.to_pylist(), start=first_row):
        try:
            for part in value if isinstance(value, list) else [value]:
                (part or b"").decode()
        except UnicodeDecodeError as error:
            what = f"column {name!r}, row {row}: the text is no UTF-8"
            raise InvalidFile(f"{what}; decode it anew and write it as UTF-8") from error


def _bytes_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(type_):
        return pa.large_binary()
    return pa.binary_view() if pa.types.is_string_view(type_) else pa.binary()
