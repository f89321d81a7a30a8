"""A dataset as a folder of shards: what everything reads behind the arrival of a file, whatever its format was.

    index.json             what the columns and splits are: :class:`ShardIndex`
    train-00000.parquet    rows of one split in the order of the file, about 64 MiB; on a host ``train-00000.arrow`` in its place,
                           the same rows as Arrow's file format, uncompressed, to be mapped into memory

A shard has the fields ``_row`` (the row of the file, from 0), ``_line`` (of text files, from 1), ``_hash`` (16 bytes, equal for
equal samples), those of the input, and one for each target. What a field holds stands in its metadata: a :class:`Stored`.
Images and sound stay the files that they were, beside them what tells their decoded size. Invariant: the folder reads as the file
that it was made of, value by value, with the same description and the same warnings.
"""

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field, ValidationError

from service.errors import InvalidFile
from service.spec.data import Column
from service.spec.strict import StrictModel
from service.spec.tasks import TargetKind, TaskName
from service.spec.warning_message import WarningMessage

INDEX_FILE = "index.json"
PARQUET, ARROW = ".parquet", ".arrow"
ROW, LINE, HASH = "_row", "_line", "_hash"
SIDES = ("_height", "_width", "_channels")
"""Beside files of images."""
LENGTH = ("_samples", "_rate")
"""Beside files of sound."""
_METADATA = b"stillhouse"


class SplitShards(StrictModel):
    """The shards of one split."""

    rows: int
    shards: list[str]
    """Names of the Parquet files, in the order of their rows."""
    bytes: int
    """Of the inputs, decoded: how much memory they take."""


class ShardIndex(StrictModel):
    """What a reader told of the file that the shards were made of."""

    version: Literal[1] = 1
    task: TaskName
    input: list[str]
    """The input columns."""
    targets: dict[str, TargetKind]
    class_names: dict[str, list[str]]
    lacking: list[str]
    """Targets that were asked for and that the file lacks."""
    warnings: list[WarningMessage]
    columns: dict[str, Column]
    splits: dict[str, SplitShards]


class Stored(StrictModel):
    """What a field of a shard holds."""

    kind: Literal["image", "pixels", "audio", "text", "chat", "json", "index", "number", "name"]
    """Files of images or sound; arrays of pixels; texts; chats; lists and whatever is nested, as JSON; class indices, -1 and -2
    where there is none; numbers, NaN where there is none; class names and answers, null where there is none."""
    shape: list[int] | None = Field(None, min_length=3, max_length=3)
    """Of pixels: channels, height, width."""
    dtype: Literal["uint8", "float32"] | None = None
    """Of pixels."""


def field_name(column: str) -> str:
    """The field of a column of the file. None begins with a single ``_``, as the fields do that are no columns."""
    return f"_{column}" if column.startswith("_") else column


def read_index(folder: Path) -> ShardIndex:
    """Reads ``index.json``. Raises InvalidFile if it is none."""
    try:
        return ShardIndex.model_validate_json((folder / INDEX_FILE).read_bytes())
    except FileNotFoundError as error:
        raise InvalidFile(f"the folder {folder.name!r} is none of a dataset's shards: it has no {INDEX_FILE}") from error
    except ValidationError as error:
        raise InvalidFile(f"{INDEX_FILE} of the dataset's shards is not understood: {error.errors()[0]['msg']}") from error


def shard_path(folder: Path, name: str) -> Path:
    """The file of a shard: the one to be mapped, where there is one."""
    mapped = (folder / name).with_suffix(ARROW)
    return mapped if mapped.exists() else folder / name


def stored_field(column: str, type_: pa.DataType, stored: Stored) -> pa.Field:
    """The field of a column, with what it holds."""
    metadata = {_METADATA: stored.model_dump_json(exclude_none=True).encode()}
    return pa.field(field_name(column), type_, metadata=metadata)


def stored_as(field: pa.Field) -> Stored:
    """What a field holds. Raises InvalidFile if it does not say."""
    try:
        return Stored.model_validate(json.loads((field.metadata or {})[_METADATA]))
    except (KeyError, ValueError) as error:
        raise InvalidFile(f"field {field.name!r} of a dataset's shard does not say what it holds") from error
