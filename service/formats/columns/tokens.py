"""The words of a Parquet column of lists of strings, and the lists of targets beside an input of words."""

import json
from typing import Any

import pyarrow as pa

from service.errors import InvalidFile
from service.formats.columns.arrow import is_list, is_string, type_name
from service.formats.text import CharacterLimit
from service.formats.words import HOW_TO_MARK_SPANS, HOW_TO_TAG, HOW_TO_WRITE_SPANS, check_tokens
from service.spec.data import Column
from service.spec.tasks import TargetKind
from service.spec.warning_message import WarningMessage


class TokensColumn:
    """See :class:`service.formats.readers.parquet.InputColumn`."""

    rows_at_once = 256

    def __init__(self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int, skip_broken: bool) -> None:
        self._name = name
        self._dtype = type_name(first.type)
        self._limit = CharacterLimit(max_unpacked_bytes, "words")
        if not is_list(first.type) or not is_string(first.type.value_type):
            raise InvalidFile(f"column {name!r} is of {self._dtype}; words are lists of strings, a list a row")

    def describe(self) -> Column:
        return Column(kind="tokens", dtype=self._dtype)

    def warnings(self) -> list[WarningMessage]:
        return []

    def read(self, column: pa.Array, *, first_row: int) -> list[list[str]]:
        rows = check_tokens(column.to_pylist(), place=lambda index: f"column {self._name!r}, row {first_row + index}")
        self._limit.add(sum(len(word) for words in rows for word in words), first_row=first_row)
        return rows


def check_list_type(name: str, type_: pa.DataType, kind: TargetKind, *, has_names: bool) -> None:
    """Raises InvalidFile if a column of that type cannot hold tags, or spans; ``has_names``: its integers have names."""
    if pa.types.is_null(type_):
        return
    inner = type_.value_type if is_list(type_) else None
    found = f"column {name!r} is of {type_name(type_)}"
    if kind == "tags":
        if inner is not None and pa.types.is_integer(inner) and not has_names:
            raise InvalidFile(
                f"{found}, and the file does not name the tags; write their names, for instance [names[tag] for tag in tags], or "
                "keep the features of Hugging Face's datasets (Sequence(ClassLabel)), whose to_parquet stores the names"
            )
        if inner is not None and pa.types.is_struct(inner):
            raise InvalidFile(f"{found}; {HOW_TO_MARK_SPANS}")
        if inner is None or not (is_string(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)):
            raise InvalidFile(f"{found}; tags are lists of strings, one for each word")
    elif pa.types.is_struct(type_):
        raise InvalidFile(
            f"{found}; spans are a list of structs, and this is a struct of lists: write "
            "[dict(zip(spans, each)) for each in zip(*spans.values())]"
        )
    elif inner is not None and is_string(inner):
        raise InvalidFile(f"{found}; {HOW_TO_TAG}")
    elif inner is None or not (pa.types.is_struct(inner) or pa.types.is_null(inner)):
        raise InvalidFile(f"{found}; {HOW_TO_WRITE_SPANS}")


def named_tags(rows: list[Any], names: list[str], *, name: str, first_row: int) -> list[Any]:
    """Tags by name, of rows that hold their indices. Raises InvalidFile if an index has no name."""
    found: list[Any] = []
    for row, tags in enumerate(rows, start=first_row):
        for number, tag in enumerate(tags or ()):
            if tag is not None and not 0 <= tag < len(names):
                raise InvalidFile(
                    f"column {name!r}, row {row}, word {number}: tag {tag}; the file names tags 0 to {len(names) - 1}: name "
                    "that one too, or leave it null where there is none"
                )
        found.append(tags and [None if tag is None else names[tag] for tag in tags])
    return found


def feature_names(metadata: bytes, column: str) -> Any:
    """What Hugging Face's datasets note as the class names of a column, of the elements of its lists, or of a field ``a.b``."""
    feature = json.loads(metadata)["info"]["features"]
    for part in [column] if column in feature else column.split("."):
        feature = feature[part]
    while isinstance(feature, list) or "feature" in feature:
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature["names"]
