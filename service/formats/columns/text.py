"""The texts of a Parquet column of strings."""

import pyarrow as pa

from service.errors import InvalidFile
from service.formats.columns.arrow import is_list, is_string, strings, type_name
from service.formats.text import HOW_TO_WRITE_CHATS, CharacterLimit, check_texts
from service.spec.data import Column
from service.spec.warning_message import WarningMessage


class TextColumn:
    """See :class:`service.formats.readers.parquet.InputColumn`."""

    rows_at_once = 256
    """About a megabyte of texts of a page each."""

    def __init__(self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int, skip_broken: bool) -> None:
        self._name = name
        self._dtype = type_name(first.type)
        self._limit = CharacterLimit(max_unpacked_bytes, "texts")
        if is_list(first.type) and pa.types.is_struct(first.type.value_type):
            raise InvalidFile(f"column {name!r} is of {self._dtype}; texts are strings: {HOW_TO_WRITE_CHATS}")
        if not is_string(first.type):
            raise InvalidFile(f"column {name!r} is of {self._dtype}; texts are strings: name another column, or cast it")

    def describe(self) -> Column:
        return Column(kind="text", dtype=self._dtype)

    def warnings(self) -> list[WarningMessage]:
        return []

    def read(self, column: pa.Array, *, first_row: int) -> list[str]:
        texts = check_texts(strings(column), place=lambda index: f"column {self._name!r}, row {first_row + index}")
        self._limit.add(sum(map(len, texts)), first_row=first_row)
        return texts
