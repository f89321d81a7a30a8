"""Middleware of all routes: request ids, limits on bodies and rates, HEAD, and a response to uncaught exceptions."""

import hashlib
import re
import time
from collections import OrderedDict
from math import ceil
from urllib.parse import unquote_to_bytes

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem, response_of, response_of_unexpected
from service.errors import InvalidRequest, TooManyRequests
from service.ids import new_id
from service.security import bearer_key

_IS_HEAD = "stillhouse.is_head"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_ADDRESS_BYTES = 16_384
_MAX_KEYS = 10_000
"""Keys whose rate is remembered; the least recently used one is dropped first."""


class RequestIds:
    """Adds ``X-Request-Id`` to each response, and responds to exceptions that no handler caught: of a part, or of a defect."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = message["headers"] = [*message.get("headers", ())]  # a response may share its own with others
                names = {name.lower() for name, _ in headers}
                headers.append((b"x-request-id", request_id.encode()))
                if b"x-content-type-options" not in names:
                    headers.append((b"x-content-type-options", b"nosniff"))
                if b"cache-control" not in names:
                    is_secret = scope["path"].startswith("/v1/keys")
                    headers.append((b"cache-control", b"no-store" if is_secret else b"private, no-cache"))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - the boundary of a request, which logs it
            response = response_of_unexpected(error, request_id, f"{scope['method']} {scope['path']}")
            if not started:  # else the server closes the connection, so that the client sees that the end is missing
                await response(scope, receive, send_with_id)


class BodyLimit:
    """Refuses a body above the limit by its Content-Length, or without that header as soon as too many bytes have arrived."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._max_upload_bytes if _is_upload(scope["method"], scope["path"]) else self._max_bytes
        detail = f"the body is larger than {limit} bytes, which is the most that this service takes here"
        declared = _header(scope, b"content-length")
        if declared.isdecimal() and int(declared) > limit:
            refusal = problem(413, "body_too_large", detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise HTTPException(413, detail, headers={"Connection": "close"})
            return message

        await self.app(scope, receive_limited, send)


def _is_upload(method: str, path: str) -> bool:
    return (method == "POST" and path in {"/v1/datasets", "/v1/models"}) or (
        method == "PUT" and path.startswith("/v1/model-uploads/")
    )


class PlainAddresses:
    """Refuses a very long URL, and one with a NUL character: PostgreSQL's text cannot contain one, so nothing has such a name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) + len(scope["query_string"]) > _MAX_ADDRESS_BYTES:
            detail = f"an address has at most {_MAX_ADDRESS_BYTES} bytes"
            await problem(414, "address_too_long", detail, headers={"Connection": "close"})(scope, receive, send)
            return
        if scope["type"] == "http" and ("\0" in scope["path"] or b"\0" in unquote_to_bytes(scope["query_string"])):
            refusal = response_of(InvalidRequest("an address may not hold the NUL character (%00)"))
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)


class HeadAsGet:
    """Gives a HEAD to the route of GET, marked as what it is (:func:`is_head`). The server sends no body for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", _IS_HEAD: True}
        await self.app(scope, receive, send)


def is_head(scope: Scope) -> bool:
    """Whether a request that looks like a GET is a HEAD: a route may then leave out the work for the body."""
    return _IS_HEAD in scope


class RateLimit:
    """A token bucket for each key: a sustained rate, and bursts of two seconds' worth. Health checks are not counted."""

    def __init__(self, app: ASGIApp, *, requests_per_second: float) -> None:
        self.app = app
        self._rate = requests_per_second
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """By the SHA-256 of the key: the remaining tokens, and the monotonic time at which they were counted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in {"/healthz", "/readyz"}:
            await self.app(scope, receive, send)
            return
        wait_seconds = self._take(_caller_digest(scope))
        if wait_seconds > 0:
            detail = (
                f"more than {self._rate:g} requests a second with this key; wait, or ask for fewer (long polls and streams do)"
            )
            refusal = response_of(TooManyRequests(detail, retry_after_seconds=ceil(wait_seconds)))
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _take(self, caller: bytes) -> float:
        """Takes a token and returns 0.0, or returns the seconds until there is one."""
        now = time.monotonic()
        burst = max(1.0, 2 * self._rate)
        tokens, since = self._buckets.pop(caller, (burst, now))
        tokens = min(burst, tokens + (now - since) * self._rate)
        taken = tokens >= 1
        self._buckets[caller] = (tokens - 1 if taken else tokens, now)
        if len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self._rate


def _caller_digest(scope: Scope) -> bytes:
    key = bearer_key(_header(scope, b"authorization"))
    client = scope.get("client")
    return hashlib.sha256((key or f"from {client[0] if client else '?'}").encode()).digest()


def _header(scope: Scope, name: bytes) -> str:
    """The first header of that name; empty if there is none. ASGI servers send the names in lower case."""
    for given, value in scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return ""
