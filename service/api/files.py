"""Responses that send a stored file: ETag, byte ranges, HEAD, and a redirect if the store has signed URLs.

No stored file can run scripts with the origin of this service: it is sent as a download, in a CSP sandbox, without sniffing.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request, Response
from starlette.responses import RedirectResponse, StreamingResponse

from service.api.conditions import is_unchanged, read_range
from service.api.dependencies import Services
from service.api.middleware import is_head
from service.api.parameters import IfNoneMatch, IfRange, Range
from service.api.problems import described, response_of
from service.errors import NotFound, RangeNotSatisfiable
from service.store import StoredFile

_SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox"

_BINARY = {"schema": {"type": "string", "format": "binary"}}

Reader = Callable[[int, int], Awaitable[Iterable[bytes] | AsyncIterable[bytes]]]
"""Begins to read ``length`` bytes from ``start``."""


@dataclass(frozen=True)
class _RangeRequest:
    """The conditional headers of a request for a file, and the part of it that they name (RFC 9110, sections 13 and 14)."""

    if_none_match: IfNoneMatch = None
    range: Range = None
    if_range: IfRange = None


RangeRequest = Annotated[_RangeRequest, Depends()]


def file_responses(content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that returns :func:`file_response`. ``content``: OpenAPI's content by media type."""
    return {
        200: {"description": "The bytes.", "content": content},
        206: {"description": "The part that `Range` names.", "content": dict.fromkeys(content, _BINARY)},
        304: {"description": "The client has them: its `If-None-Match` is their `ETag`, the SHA-256."},
        **described(NotFound, RangeNotSatisfiable),
    }


STORED_FILE_RESPONSES = file_responses({"*/*": _BINARY}) | {302: {"description": "The bytes are at `Location`, for an hour."}}
"""The ``responses`` of the routes that send any file as a download."""


async def file_response(
    request: Request, services: Services, file: StoredFile, range_request: RangeRequest, *, as_page: bool = False
) -> Response:
    """Sends the file or the requested range of it. ``as_page`` lets the browser display it, without scripts.

    Raises:
        NotFound: the file is no longer in the store.
    """
    store, calls = services.store, services.store_calls

    async def read(start: int, length: int) -> AsyncIterable[bytes]:
        return calls.iterate(await calls.run(partial(store.stream, file.path, start=start, length=length)))

    etag = f'"{file.sha256}"'
    filename = quote(file.name.rpartition("/")[2])
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": "inline" if as_page else f"attachment; filename*=UTF-8''{filename}",
    }
    if is_unchanged(etag, range_request.if_none_match):
        return Response(status_code=304, headers=headers)
    address = None if as_page else await calls.run(partial(store.signed_url, file.path))
    if address is not None:
        return RedirectResponse(address, status_code=302, headers={"ETag": etag, "Cache-Control": "no-store"})
    return await ranged_response(
        request,
        size=file.size,
        range_header=range_request.range if range_request.if_range in (None, etag) else None,
        media_type=file.media_type,
        headers=headers,
        read=read,
    )


async def ranged_response(
    request: Request, *, size: int, range_header: str | None, media_type: str, headers: dict[str, str], read: Reader
) -> Response:
    """Sends ``size`` bytes (200) or the part that ``range_header`` names (206); 416 if there is no such part."""
    try:
        part = read_range(range_header, size)
    except RangeNotSatisfiable as error:
        response = response_of(error)
        response.headers["Content-Range"] = f"bytes */{size}"
        return response
    start, length = (0, size) if part is None else (part.start, part.length)
    headers = headers | {"Content-Length": str(length), "Accept-Ranges": "bytes"}
    if part is not None:
        headers["Content-Range"] = part.header
    status = 200 if part is None else 206
    if is_head(request.scope):
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(await read(start, length), status_code=status, headers=headers, media_type=media_type)
