"""Decoding of request bodies: strict JSON, and YAML for job specs. A decoded document can be stored and returned unchanged.

Refused: NaN and infinity, invalid UTF-8, lone surrogates, NUL characters (PostgreSQL's text has none), integers beyond 64 bits,
more than ``MAX_VALUES`` values, values nested deeper than ``MAX_DEPTH``, keys that stand twice in an object, and YAML aliases.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from http import HTTPStatus
from typing import Any

import pydantic_core
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from service.api.middleware import is_head
from service.errors import MAX_FAULTS, FieldError, InvalidInput, InvalidRequest, InvalidSpec, UnsupportedMediaType
from service.spec.repeated_keys import repeated_in_json
from service.spec.yaml_document import MAX_DEPTH, MAX_VALUES, load_yaml

_SMALL_BYTES = 16_384
_STALLED_SECONDS = 60.0
_ONCE = frozenset({b"authorization", b"content-type", b"idempotency-key", b"if-range", b"last-event-id", b"range"})
"""Headers that have one value; of two, the service and what is before it may each read another."""
_one_large_body = RunVar[CapacityLimiter]("one_large_body")
_Checked = tuple[Any, list[FieldError]]
"""A document, and what cannot be stored of it."""
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


class StrictRequest(Request):
    """A request whose JSON body is decoded by :func:`decode_json` and checked by :func:`storable_faults`.

    Of a body that breaks off, or of which nothing comes for long, reading raises an HTTPException: FastAPI lets no other pass.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        chunks = super().stream()
        while True:
            try:
                async with asyncio.timeout(_STALLED_SECONDS):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                detail = f"nothing came of the body for {_STALLED_SECONDS:g} s"
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"Connection": "close"}) from error
            except ClientDisconnect as error:
                raise HTTPException(HTTPStatus.BAD_REQUEST, "the body broke off") from error
            if chunk is None:
                return
            yield chunk

    async def json(self) -> Any:
        document, faults = await _read(_checked_json, await self.body())
        if faults:
            raise InvalidBody(faults)
        return document


class InvalidBody(HTTPException):
    """Carries an ``InvalidInput`` through FastAPI's reading of bodies, which only lets an HTTPException pass."""

    def __init__(self, faults: list[FieldError]) -> None:
        super().__init__(status_code=422, detail="the body cannot be stored")
        self.faults = faults


class StrictRoute(APIRoute):
    """The route class of every router: decodes bodies strictly, and refuses a body of another media type than JSON.

    FastAPI passes such a body to the model as bytes, and the resulting errors do not mention the content type. A body without a
    type is JSON; that makes no CSRF, because a browser never sends the Authorization header on its own.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named | {"strict_content_type": False})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            refuse_repeated(request.headers)
            strict = StrictRequest(request.scope, request.receive)
            if self.body_field is not None and not _is_json(content_type(request)) and await strict.body():
                raise UnsupportedMediaType(_send_as("a body", "application/json", request), param="Content-Type")
            try:
                response = await handle(strict)
            except InvalidBody as error:
                raise InvalidInput(error.faults) from error
            if is_head(request.scope) and isinstance(response, StreamingResponse):  # it may have no end
                return _without_body(response)
            return response

        return handle_strictly


async def read_document(request: Request) -> Any:
    """Decodes the body as JSON, or as YAML by its content type.

    Raises:
        UnsupportedMediaType: the content type is neither JSON nor YAML.
        InvalidRequest: the body is not valid JSON or YAML.
        InvalidSpec: the document contains values that cannot be stored, or a key twice in one object.
    """
    body = await request.body()
    if content_type(request) in YAML_TYPES:
        document, faults = await _read(_checked_yaml, body)
    elif _is_json(content_type(request)) or not body:
        try:
            document, faults = await _read(_checked_json, body)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"the body is not JSON: {error.msg}", param="body") from error
    else:
        raise UnsupportedMediaType(_send_as("a spec", "application/json or application/yaml", request), param="Content-Type")
    if faults:
        raise InvalidSpec(faults)
    return document


def content_type(request: Request) -> str:
    """The media type of the body, without parameters; ``application/json`` if the request has no Content-Type."""
    return request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def decode_json(body: bytes) -> Any:
    """Decodes strict JSON. Raises JSONDecodeError, also for bytes that are not UTF-8."""
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise json.JSONDecodeError(str(error), body.decode(errors="replace"), 0) from error


def decode_yaml(body: bytes) -> Any:
    """Decodes YAML without aliases. Raises InvalidRequest, and InvalidSpec where a key stands twice in an object."""
    try:
        return load_yaml(body.decode(), aliases=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not YAML: {error}", param="body") from error


def storable_faults(document: Any) -> list[FieldError]:
    """Finds the values of a decoded document that cannot be stored; at most one error for each value, and MAX_FAULTS in all."""
    faults: list[FieldError] = []
    open_values: list[tuple[str, int, Any]] = [("", 0, document)]
    num_values = 1
    while open_values and len(faults) < MAX_FAULTS:
        pointer, depth, value = open_values.pop()
        num_values += 2 * len(value) if isinstance(value, dict) else len(value) if isinstance(value, list) else 0
        if num_values > MAX_VALUES:
            return [FieldError(pointer="", message=f"there are more than {MAX_VALUES:,} values in it")]
        message = _scalar_fault(value)
        if message is not None:
            faults.append(FieldError(pointer=pointer, message=message))
        elif isinstance(value, dict | list) and depth >= MAX_DEPTH:
            faults.append(FieldError(pointer=pointer[:200], message=f"values may be nested {MAX_DEPTH} levels deep"))
        elif isinstance(value, dict):
            for key, inner in value.items():
                message = _scalar_fault(key) if isinstance(key, str) else f"a field's name must be text, not {key!r:.80}"
                if message is not None:
                    faults.append(FieldError(pointer=pointer, message=f"in a field's name: {message}"))
                else:
                    step = key.replace("~", "~0").replace("/", "~1")
                    open_values.append((f"{pointer}/{step}", depth + 1, inner))
        elif isinstance(value, list):
            open_values.extend((f"{pointer}/{index}", depth + 1, inner) for index, inner in enumerate(value))
    return faults


def refuse_repeated(headers: Headers) -> None:
    """Raises InvalidRequest if a header of one value is given twice."""
    once = [name for name, _ in headers.raw if name in _ONCE]
    if len(once) != len(set(once)):
        repeated = next(name.decode() for name in once if once.count(name) > 1)
        raise InvalidRequest(f"the header {repeated} is given twice", param=repeated)


async def _read(decode: Callable[[bytes], _Checked], body: bytes) -> _Checked:
    """Decodes a large body in a thread, one at a time: decoding takes much of the interpreter's lock, and others are waiting."""
    if len(body) <= _SMALL_BYTES:
        return decode(body)
    try:
        limiter = _one_large_body.get()
    except LookupError:
        limiter = CapacityLimiter(1)
        _one_large_body.set(limiter)
    return await to_thread.run_sync(decode, body, limiter=limiter)


def _checked_json(body: bytes) -> _Checked:
    document = decode_json(body)
    return document, storable_faults(document) or repeated_in_json(body)


def _checked_yaml(body: bytes) -> _Checked:
    document = decode_yaml(body)
    return document, storable_faults(document)


def _without_body(response: Response) -> Response:
    head = Response(status_code=response.status_code)
    head.raw_headers = response.raw_headers
    return head


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _send_as(what: str, accepted: str, request: Request) -> str:
    return f"send {what} as {accepted}, not as {content_type(request)!r:.100}; curl: -H 'Content-Type: application/json'"


def _scalar_fault(value: Any) -> str | None:
    match value:
        case str():
            if "\0" in value:
                return "text may not hold the NUL character (\\u0000)"
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                return "text may not hold half of a surrogate pair"
        case bool() | None | dict() | list():
            return None
        case int():
            if not -(2**63) <= value < 2**63:
                return "integers have at most 64 bits"
        case float():
            if not math.isfinite(value):
                return "numbers must be finite"
        case _:
            return f"{type(value).__name__} is no JSON value; write it as text"
    return None
