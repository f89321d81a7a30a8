"""Parsing of server-sent events (WHATWG HTML, section 9.2): text to lines to messages."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One dispatched message. ``id`` is the last id of the stream, empty before the first."""

    id: str
    event: str
    data: str


def read_lines(chunks: Iterable[str]) -> Iterator[str]:
    """Splits text at CR LF, LF and CR alone, as the standard defines. ``httpx`` would also split at characters such as U+2028."""
    rest = ""
    for chunk in chunks:
        # A CR at the end of a chunk may be the first half of CR LF.
        *lines, rest = re.split(r"\r\n|\n|\r(?!\Z)", rest + chunk)
        yield from lines


def read_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Yields messages as they become complete; comments, which keep the connection alive, are skipped."""
    last_id, event, data = "", "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Message(id=last_id, event=event, data="\n".join(data))
            event, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            event = value
        elif field == "id":
            last_id = value
