"""Long polls and event streams of a job. A waiting request holds no thread and no database connection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from service import queries
from service.api.dependencies import Services
from service.api.responses.records import event_view
from service.errors import NotFound
from service.notifications import wait_for_notification

COMMENT_SECONDS = 15.0
"""The longest time without output: then a comment line is sent, which keeps the connection alive."""
_BATCH = 500
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


async def until_changed(
    services: Services, job_id: str, read: Callable[[], Answer], *, is_new: Callable[[Answer], bool], wait_seconds: float
) -> Answer:
    """Reads at each notification of the job until ``is_new`` accepts the answer or the time is up; returns the last answer."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    with services.hub.subscribed(job_id) as notified:
        while True:
            answer = await run_in_threadpool(read)
            remaining = deadline - loop.time()
            if is_new(answer) or remaining <= 0 or services.hub.closing:
                return answer
            await wait_for_notification(notified, timeout_seconds=remaining)


def event_stream(services: Services, job_id: str, *, after: int) -> StreamingResponse:
    """Streams the job's events with a ``seq`` above ``after``, in order and without repeats, up to its final state."""
    last = after

    def read() -> tuple[list[bytes], bool]:
        nonlocal last
        with services.database.transaction() as session:
            ended = queries.is_final(session, job_id)
            found, has_more = queries.events(session, job_id, after=last, limit=_BATCH)
        if found:
            last = found[-1].seq
        messages = [
            format_sse_event(id=str(event.seq), event=event.type, data_str=event_view(event).model_dump_json()) for event in found
        ]
        return messages, ended and not has_more

    return _stream(services, job_id, read)


def log_stream(services: Services, job_id: str, *, start: int) -> StreamingResponse:
    """Streams the job's log from byte ``start``, in whole lines, until the job has ended. The ids are byte offsets."""
    position = start

    def read() -> tuple[list[bytes], bool]:
        nonlocal position
        with services.database.transaction() as session:
            ended = queries.is_final(session, job_id)
            data = queries.log_bytes(session, job_id, start=position)
        if not ended:
            data = data[: data.rfind(b"\n") + 1]
        position += len(data)
        text = data.decode(errors="replace").removesuffix("\n")
        return ([format_sse_event(id=str(position), event="log", data_str=text)] if data else []), ended

    return _stream(services, job_id, read)


def _stream(services: Services, job_id: str, read: Callable[[], tuple[list[bytes], bool]]) -> StreamingResponse:
    headers = {"Cache-Control": "no-cache", "Vary": "Accept", "X-Accel-Buffering": "no"}
    return StreamingResponse(_follow(services, job_id, read), media_type="text/event-stream", headers=headers)


async def _follow(services: Services, job_id: str, read: Callable[[], tuple[list[bytes], bool]]) -> AsyncIterator[bytes]:
    """Ends early if the process shuts down or the database is unavailable: clients reconnect with ``Last-Event-ID``."""
    loop = asyncio.get_running_loop()
    yield format_sse_event(comment="the events of this job follow")
    quiet_since = loop.time()
    with services.hub.subscribed(job_id) as notified:
        while not services.hub.closing:
            try:
                messages, complete = await run_in_threadpool(read)
            except (SQLAlchemyError, NotFound) as error:
                logger.info("a stream of job %s ends: %s", job_id, error)
                return
            if messages:
                yield b"".join(messages)
                quiet_since = loop.time()
            if complete:
                return
            if messages:
                continue
            if loop.time() - quiet_since >= COMMENT_SECONDS:
                yield format_sse_event(comment="still here")
                quiet_since = loop.time()
            await wait_for_notification(notified, timeout_seconds=COMMENT_SECONDS - (loop.time() - quiet_since))
