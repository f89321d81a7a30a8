"""Server-sent events (WHATWG HTML, section 9.2): lines of a stream to messages."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One dispatched message. ``id`` is the last one that the stream gave, empty before the first."""

    id: str
    event: str
    data: str


def read_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Messages as they become complete; comments, which keep the connection alive, are dropped."""
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
