"""Chats: lists of messages, each with a role and a content, and the tools that were offered.

Invariant: behind a reader a chat is one text, its JSON, so that equal chats are equal texts. No message has a key without value.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from service.errors import InvalidFile
from service.formats.chunk import is_unicode
from service.spec.tasks import InputColumnKind, TargetKind

TOOLS_COLUMN = "tools"
"""Beside an input of messages, the column of the tools that each chat offers."""
MAX_CHAT_CHARACTERS = 1_000_000
HOW_TO_WRITE_CHAT = "a chat is a list of messages, [{'role': 'user', 'content': '…'}, {'role': 'assistant', 'content': '…'}]"
_HOW_TO_WRITE_TOOLS = "tools are a list of JSON schemas, as transformers' apply_chat_template takes them"


class Chat(str):
    """A chat as the text of a JSON object; see :func:`chat_of`."""

    __slots__ = ()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, each with at least a role."""
        return cast(list[dict[str, Any]], json.loads(self)["messages"])

    @property
    def tools(self) -> list[Any] | None:
        """The tools that were offered; None without any."""
        return cast(list[Any] | None, json.loads(self).get("tools"))


def chat_of(messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None = None) -> Chat:
    """Writes messages, and tools if there are any, as a chat."""
    whole = {"messages": messages} | ({"tools": tools} if tools else {})
    return Chat(json.dumps(whole, ensure_ascii=False))


def check_chats(
    values: Iterable[object], *, place: Callable[[int], str], tools: Sequence[object] | None = None, are_structs: bool = False
) -> list[Chat]:
    """Checks that all values are lists of messages, and returns them as chats with their ``tools``, if there is a column of them.

    The arguments of a tool call that are the text of a JSON object become that object, as ``apply_chat_template`` asks. With
    ``are_structs`` the values come from structs of Arrow, in which a key that a message lacks is one without a value: such keys
    are removed at any depth, elsewhere from the messages alone.

    Raises:
        InvalidFile: a value is no chat; ``place`` gives the place of a row.
    """
    chats = []
    for index, value in enumerate(values):
        try:
            messages = _messages(_without_nulls(value) if are_structs else value)
            offered = None if tools is None else _tools(_without_nulls(tools[index]) if are_structs else tools[index])
            chats.append(_checked(chat_of(messages, offered)))
        except _Fault as fault:
            raise InvalidFile(f"{place(index)}: {fault}") from fault
        except (TypeError, ValueError) as error:
            raise InvalidFile(f"{place(index)}: the chat cannot be written as JSON: {str(error)[:200]}") from error
    return chats


def check_answer_kind(column: str, kind: TargetKind, of_input: InputColumnKind) -> TargetKind:
    """Returns the kind of a column of answers. Raises InvalidFile if it is not that of its inputs: texts, or both messages."""
    if kind != of_input:
        held = {"text": "texts", "messages": "messages"}
        raise InvalidFile(
            f"column {column!r} holds {held[kind]}, and the input {held[of_input]}: write both as texts, or both as messages, "
            "[{'role': 'assistant', 'content': text}]"
        )
    return kind


def refuse_chats_as_text(texts: Sequence[object], *, place: Callable[[int], str]) -> None:
    """Raises InvalidFile at the first text that is the JSON of a chat: as a text it would be learnt with its brackets."""
    for index, text in enumerate(texts):
        if isinstance(text, Chat) or not isinstance(text, str) or not text.lstrip().startswith("[{"):
            continue
        try:
            _messages(json.loads(text))
        except (_Fault, ValueError, RecursionError):
            continue
        raise InvalidFile(
            f"{place(index)}: the text is the JSON of a chat; store the lists themselves, in JSON Lines or Parquet, "
            "for instance with json.loads"
        )


class _Fault(Exception):
    pass


def _messages(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise _Fault(f"this is no chat but {value!r:.80}; {HOW_TO_WRITE_CHAT}")
    if not value:
        raise _Fault("the chat has no message; write some or drop the row")
    messages = []
    for number, message in enumerate(value):
        if not isinstance(message, dict):
            raise _Fault(f"message {number} is no message but {message!r:.80}; {HOW_TO_WRITE_CHAT}")
        messages.append(_message({key: held for key, held in message.items() if held is not None}, number))
    return messages


def _message(message: dict[str, Any], number: int) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if "role" not in message and {"from", "value"} <= message.keys():
        raise _Fault(
            f"message {number} has 'from' and 'value'; write {{'role': 'user', 'assistant' or 'system', 'content': …}} instead"
        )
    if not isinstance(role, str) or not role:
        raise _Fault(f"message {number} has no role; {HOW_TO_WRITE_CHAT}")
    if isinstance(content, list):
        raise _Fault(
            f"the content of message {number} is a list of parts; write the text alone, for these networks read no other"
        )
    if content is not None and not isinstance(content, str):
        raise _Fault(f"the content of message {number} is {content!r:.80}; write a text")
    calls = message.get("tool_calls")
    if calls is not None:
        message = message | {"tool_calls": [_call(call, number) for call in _listed(calls, number)]}
    if (
        role == "assistant"
        and not calls
        and not any(_is_said(held) for key, held in message.items() if key not in ("role", "name"))
    ):
        raise _Fault(f"message {number}, of the assistant, is empty; write an answer, or drop the row")
    if content is None and not calls and role != "assistant":
        raise _Fault(f"message {number} has no content; write a text, empty if need be, or drop the message")
    return message


def _is_said(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def _listed(calls: object, number: int) -> list[Any]:
    if not isinstance(calls, list):
        raise _Fault(f"the tool_calls of message {number} are {calls!r:.80}; write a list")
    return calls


def _call(call: object, number: int) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise _Fault(f"a tool call of message {number} is {call!r:.80}; write {{'type': 'function', 'function': {{…}}}}")
    function = call.get("function")
    if isinstance(function, dict):
        return call | {"function": _with_read_arguments(function)}
    return _with_read_arguments(call)


def _with_read_arguments(function: dict[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return function
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return function
    return function | {"arguments": read} if isinstance(read, dict) else function


def _tools(value: object) -> list[Any] | None:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Fault(
                f"column {TOOLS_COLUMN!r} holds a text that is no JSON: {str(error)[:100]}; {_HOW_TO_WRITE_TOOLS}"
            ) from error
    if value is None or value == "" or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise _Fault(f"column {TOOLS_COLUMN!r} holds {value!r:.80}; {_HOW_TO_WRITE_TOOLS}")
    return value


def _checked(chat: Chat) -> Chat:
    if len(chat) > MAX_CHAT_CHARACTERS:
        raise _Fault(f"the chat has {len(chat):,} characters; at most {MAX_CHAT_CHARACTERS:,} may be: cut it into several rows")
    if "\\u0000" in chat and any("\0" in text for text in _texts(json.loads(chat))):
        raise _Fault("the chat holds a NUL character; remove it, for instance with text.replace('\\0', '')")
    if not is_unicode(chat):
        raise _Fault("the chat holds half a surrogate pair, which is no character; remove it, or write the pair whole")
    return chat


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
        yield from value if isinstance(value, dict) else ()


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
