"""The chats of a Parquet column of lists of structs, the messages, with the tools that may stand beside them."""

import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidFile
from service.formats.chat import HOW_TO_WRITE_CHAT, TOOLS_COLUMN, Chat, check_chats
from service.formats.columns.arrow import is_list, type_name
from service.formats.text import CharacterLimit
from service.spec.data import Column
from service.spec.warning_message import WarningMessage

MESSAGES_FIELD = "messages"
"""Of the struct that holds chats beside their tools."""


class MessagesColumn:
    """See :class:`service.formats.readers.parquet.InputColumn`; it also reads a struct of messages and tools."""

    rows_at_once = 256

    def __init__(self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int, skip_broken: bool) -> None:
        self._name = name
        self._dtype = type_name(first.type)
        self._limit = CharacterLimit(max_unpacked_bytes, "chats")
        if not is_list(first.type) or not pa.types.is_struct(first.type.value_type):
            raise InvalidFile(f"column {name!r} is of {self._dtype}; texts are strings, and {HOW_TO_WRITE_CHAT}")

    def describe(self) -> Column:
        return Column(kind="messages", dtype=self._dtype)

    def warnings(self) -> list[WarningMessage]:
        return []

    def read(self, column: pa.Array, *, first_row: int) -> list[Chat]:
        chats = chats_of(column, place=f"column {self._name!r}", first_row=first_row)
        self._limit.add(sum(map(len, chats)), first_row=first_row)
        return chats


def chats_of(column: pa.Array, *, place: str, first_row: int) -> list[Chat]:
    """Reads a column of lists of messages, or of structs of such a list and tools. Raises InvalidFile."""
    tools = None
    if pa.types.is_struct(column.type):
        tools = pc.struct_field(column, TOOLS_COLUMN).to_pylist()
        column = pc.struct_field(column, MESSAGES_FIELD)
    return check_chats(column.to_pylist(), tools=tools, are_structs=True, place=lambda index: f"{place}, row {first_row + index}")
