"""Event streams of a job's events and of its log. What is new is formatted once, and the same bytes go to every stream.

A stream is written to by whoever finds it behind: by its own request when it begins, by the feed when there is news. It has a
position of its own, so that it gets each message once and in order, whichever of them writes; a client that does not read holds
up nobody, and what it has missed is read anew for it. Nothing is kept for a client but what its connection buffers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol

from fastapi.sse import format_sse_event
from sqlalchemy.orm import Session
from starlette.types import Receive, Send

from service import updates
from service.api.responses.records import EventView
from service.errors import StillhouseError

COMMENT_SECONDS = 15.0
"""The longest time without output: then a comment line is sent, which keeps the connection alive."""
_KEPT_BYTES = 256 * 1024
"""Of the last messages of a feed, for streams that begin or are a little behind."""
AT_ONCE = 32
"""Waiting requests that are answered before others have their turn."""
_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"vary", b"Accept"),
    (b"x-accel-buffering", b"no"),
)
_HELLO = format_sse_event(comment="the events of this job follow")

Messages = list[tuple[int, bytes]]
"""Each with the position that a stream has after it."""

logger = logging.getLogger(__name__)


class Kind(Protocol):
    """Reads what follows the position of each job, and which of them have still more."""

    def __call__(
        self, session: Session, positions: Mapping[str, int], *, ended: Collection[str]
    ) -> tuple[dict[str, Messages], set[str]]: ...


def event_messages(
    session: Session, positions: Mapping[str, int], *, ended: Collection[str]
) -> tuple[dict[str, Messages], set[str]]:
    """The events as messages; a position is the ``seq`` of an event."""
    found, more = updates.events(session, positions)
    return {job_id: [_event_message(EventView.model_validate(row)) for row in rows] for job_id, rows in found.items()}, more


def log_messages(
    session: Session, positions: Mapping[str, int], *, ended: Collection[str]
) -> tuple[dict[str, Messages], set[str]]:
    """The log as messages of whole lines, until the job has ended; a position is an offset in bytes."""
    found, more = updates.logs(session, positions)
    messages: dict[str, Messages] = {}
    for job_id, data in found.items():
        whole = data[: data.rfind(b"\n") + 1]
        if job_id in ended or (job_id in more and not whole):
            whole = data
        if whole:
            end = positions[job_id] + len(whole)
            line = whole.decode(errors="replace").removesuffix("\n")
            messages[job_id] = [(end, format_sse_event(id=str(end), event="log", data_str=line))]
    return messages, more


class Feed:
    """The messages of one kind of one job: the last ones, and the streams that get the next ones."""

    def __init__(self, job_id: str, kind: Kind, position: int, read: Callable[["Feed", int], Awaitable[Messages]]) -> None:
        """``read`` reads the messages that follow a position and are not kept here."""
        self.job_id, self.kind, self.position, self.read = job_id, kind, position, read
        self.num_users = 0
        """Requests that have a stream of it, or will."""
        self.is_complete = False
        """Whether the job has ended and nothing follows ``position``."""
        self.streams: set[Stream] = set()
        self._kept: dict[int, tuple[int, bytes]] = {}
        """By the position before it: the position after it, and the message. In order."""
        self._kept_bytes = 0
        self._last: tuple[int, int, bytes] = (position, position, b"")
        self._delivery: asyncio.Task[None] | None = None
        self._comment = asyncio.get_running_loop().call_later(COMMENT_SECONDS, self._send_comments)

    def advance(self, messages: Messages, *, is_complete: bool) -> None:
        """Adds messages, and delivers them."""
        for end, message in messages:
            self._kept[self.position] = (end, message)
            self._kept_bytes += len(message)
            self.position = end
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, message = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= len(message)
        self.is_complete = is_complete
        if (messages or is_complete) and (self._delivery is None or self._delivery.done()):
            self._delivery = asyncio.create_task(self._deliver())

    def after(self, position: int) -> bytes | None:
        """The messages from a position up to the feed's own; None if they are not kept."""
        if self._last[:2] == (position, self.position):
            return self._last[2]
        found, at = [], position
        while (following := self._kept.get(at)) is not None:
            at = following[0]
            found.append(following[1])
        if at != self.position:
            return None
        self._last = (position, at, b"".join(found))
        return self._last[2]

    def close(self) -> None:
        """Ends what the feed does by itself."""
        self._comment.cancel()

    async def _deliver(self) -> None:
        position, is_complete = None, False
        while (position, is_complete) != (self.position, self.is_complete):
            position, is_complete = self.position, self.is_complete
            await write_to_all(self.streams, Stream.catch_up)
            self._comment.cancel()
            self._comment = asyncio.get_running_loop().call_later(COMMENT_SECONDS, self._send_comments)

    def _send_comments(self) -> None:
        self._comment = asyncio.get_running_loop().call_later(COMMENT_SECONDS, self._send_comments)
        self._commenting = asyncio.create_task(write_to_all(self.streams, Stream.comment))


class Stream:
    """One client's stream."""

    def __init__(self, feed: Feed, position: int, send: Send) -> None:
        self.feed, self.position, self._send = feed, position, send
        self._is_busy = False
        """Whether a write goes on: whoever writes looks again for what is new when it is done."""
        self._farewell: bytes | None = None
        self._has_ended = False

    async def serve(self, receive: Receive, *, head: bool) -> None:
        """Sends what there is; returns when the client has gone or the stream has ended. ``head``: the headers alone."""
        await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        if head:
            await self._finish(b"")
            return
        await self.comment(_HELLO)
        self.feed.streams.add(self)
        try:
            await self.catch_up()
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._has_ended = True
            self.feed.streams.discard(self)

    def say_goodbye(self, why: str) -> None:
        """Ends the stream with its next :meth:`catch_up`."""
        self._farewell = format_sse_event(comment=why)

    async def catch_up(self) -> None:
        """Sends everything that follows the stream's position, and ends it where the feed is complete."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while not self._has_ended:
                data, position = self.feed.after(self.position), self.feed.position
                if self._farewell is not None:
                    await self._finish(self._farewell)
                elif self.position >= position:
                    if not self.feed.is_complete:
                        return
                    await self._finish(b"")
                elif data is not None:
                    await self._write(data)
                    self.position = position
                else:
                    await self._write_what_is_not_kept()
        finally:
            self._is_busy = False

    async def comment(self, comment: bytes = format_sse_event(comment="still here")) -> None:
        """Sends a comment, unless something else is being sent."""
        if not self._is_busy and not self._has_ended:
            self._is_busy = True
            try:
                await self._write(comment)
            finally:
                self._is_busy = False
            await self.catch_up()

    async def _write_what_is_not_kept(self) -> None:
        try:
            messages = await self.feed.read(self.feed, self.position)
        except StillhouseError as error:
            await self._finish(format_sse_event(comment=error.detail))
            return
        await self._write(b"".join(message for _, message in messages))
        self.position = messages[-1][0]

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _finish(self, data: bytes) -> None:
        self._has_ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


async def write_to_all(streams: Iterable[Stream], write: Callable[[Stream], Awaitable[None]]) -> None:
    """Writes to each stream in turn; one that has to wait for its client waits alone, and the others go on meanwhile."""
    loop = asyncio.get_running_loop()
    rest = iter(list(streams))
    begun = loop.create_future()
    tasks: set[asyncio.Task[None]] = set()

    async def write_on() -> None:
        for number, stream in enumerate(rest, start=1):
            others = loop.call_soon(go_on)  # runs before this write is done only if the write waits
            try:
                await write(stream)
            except Exception:
                logger.exception("a stream of job %s cannot be written to", stream.feed.job_id)
            others.cancel()
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        if not begun.done():
            begun.set_result(None)

    def go_on() -> None:
        task = loop.create_task(write_on())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    go_on()
    await begun


def _event_message(event: EventView) -> tuple[int, bytes]:
    return event.seq, format_sse_event(id=str(event.seq), event=event.type, data_str=event.model_dump_json())
