"""Columns that are fields of others: ``a.b`` names the field ``b`` of the column ``a``, where no column is called ``a.b``."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from service.formats.chunk import ColumnSelection

_ABSENT = object()


def nested_columns(selection: ColumnSelection) -> list[str]:
    """The selected columns that may be fields of others."""
    return [name for name in selection.columns if "." in name]


def with_nested(row: dict[str, object], columns: Collection[str]) -> dict[str, object]:
    """Adds these fields to a row of JSON, as columns of it; a field of null is null."""
    for name in columns:
        first, *path = name.split(".")
        value = row.get(first, _ABSENT)
        for part in path:
            if value is not None:
                value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            row.setdefault(name, value)
    return row


def nested_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of a field that is no column; None if there is none."""
    first, *path = name.split(".")
    if name in schema.names or schema.names.count(first) != 1:
        return None
    type_ = schema.field(first).type
    for part in path:
        if not pa.types.is_struct(type_) or type_.get_field_index(part) < 0:
            return None
        type_ = type_.field(part).type
    return type_


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of a batch, or the field of one; null where that is."""
    if name in batch.schema.names:
        return batch.column(name)
    first, *path = name.split(".")
    return pc.struct_field(batch.column(first), path)
