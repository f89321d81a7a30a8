"""Responses for errors of every layer, as RFC 9457 ``application/problem+json``. Internals appear only in the log.

The field ``error`` beside the RFC's fields is for clients of OpenAI-compatible APIs.
"""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from service.errors import MAX_FAULTS, Conflict, FieldError, InvalidInput, InvalidRequest, StillhouseError, Unavailable
from service.part_errors import Meaning, meaning_of, part_of
from service.spec.parse import as_fault

MEDIA_TYPE = "application/problem+json"
_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
}
"""The codes of errors that the framework raises; the project's own errors have theirs as an attribute."""
_HTTP_DETAILS = {404: "there is nothing at this address; /openapi.json lists what there is"}

logger = logging.getLogger(__name__)


class ErrorObject(BaseModel):
    """The same error in the form of OpenAI-compatible APIs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    message: str
    """What went wrong, in words."""
    type: str
    """``invalid_request_error`` if the client can correct it, else ``server_error``."""
    param: str | None
    """The parameter, header or place in the body that is invalid; null if it is none of them."""
    code: str
    """The stable code of this kind of error."""


class Problem(BaseModel):
    """What went wrong and what to change (RFC 9457)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """``about:blank``: the code identifies the kind of problem."""
    title: str
    """The reason phrase of the status."""
    status: int
    """The HTTP status."""
    detail: str
    """What went wrong and what to change, in words."""
    code: str
    """The stable code of this kind of error, for programs."""
    errors: Annotated[list[FieldError] | None, Field(exclude_if=lambda faults: faults is None)] = None
    """All errors of a body, a form or the parameters; absent for other kinds of errors."""
    error: ErrorObject
    """The same for clients of OpenAI-compatible APIs."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    param: str | None = None,
    faults: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Builds the response for one problem."""
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=faults,
        error=ErrorObject(
            message=detail, type="invalid_request_error" if status < 500 else "server_error", param=param, code=code
        ),
    )
    return JSONResponse(body.model_dump(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI, routes: Sequence[Route]) -> None:
    """Installs the exception handlers. ``routes``: all routes, to list the allowed methods of a path in a 405."""

    def http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return _method_not_allowed(request, _methods(routes, request.scope))
        if error.status_code == HTTPStatus.NOT_FOUND and _is_but_for_a_slash(routes, request.scope):
            return problem(404, _CODES[404], "there is nothing at this address; leave out the slash at its end")
        return _http_exception(error)

    app.add_exception_handler(StillhouseError, _stillhouse_error)
    app.add_exception_handler(HTTPException, http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)


def response_of(error: StillhouseError) -> Response:
    """Builds the response for an error of the project's own tree."""
    headers = {}
    if error.retry_after_seconds is not None or isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_seconds or 2)
    if error.status in {409, 429} and not error.retryable:
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="stillhouse"'
    faults = error.faults if isinstance(error, InvalidInput) else None
    return problem(error.status, error.code, error.detail, param=error.param, faults=faults, headers=headers)


def response_of_unexpected(error: Exception, request_id: str, request: str) -> Response:
    """Builds the response for an error that is not of the project's own tree, and logs it under the request's id.

    ``request``: method and path, for the log.
    """
    match meaning_of(error):
        case Meaning.AWAY | Meaning.RETRY:  # what could be tried again at once was
            logger.warning("request %s, %s: %s cannot be used: %s", request_id, request, part_of(error), error)
            detail = f"{part_of(error)} cannot be used at this moment; try again"
            return response_of(Unavailable(detail, retry_after_seconds=2))
        case Meaning.THEIRS if isinstance(error, IntegrityError):
            logger.warning("request %s, %s, met another one: %s", request_id, request, error)
            response = response_of(Conflict("another request changed this at the same moment; look at it again"))
            del response.headers["x-should-retry"]
            response.headers["Retry-After"] = "1"
            return response
        case Meaning.THEIRS:
            logger.warning("request %s, %s: the database refused a value: %s", request_id, request, error)
            return response_of(InvalidRequest("a value in this request is outside what can be stored"))
        case Meaning.OURS:
            logger.error("request %s failed: %s", request_id, request, exc_info=error)
            return problem(500, "internal_error", f"this is a fault of the service; its log has it as request {request_id}")


def described(*errors: type[StillhouseError]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route for OpenAPI: the problems that are specific to it."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        known = by_status.get(error.status, {}).get("description")
        description = f"{known}, {error.code}" if known else error.code
        by_status[error.status] = {"description": description, "content": problem_content()}
    return by_status


def problem_content() -> dict[str, Any]:
    """OpenAPI's content object of a problem."""
    return {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _stillhouse_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StillhouseError)
    return response_of(error)


def _methods(routes: Sequence[Route], scope: Scope) -> list[str]:
    """The methods that this path allows. Each method has a route of its own, and the framework names those of one route only."""
    found = {method for route in routes if route.matches(scope)[0] is not Match.NONE for method in route.methods or ()}
    return sorted(found | {"HEAD"} if "GET" in found else found)


def _is_but_for_a_slash(routes: Sequence[Route], scope: Scope) -> bool:
    path = scope["path"].rstrip("/")
    return path != scope["path"] and any(route.matches({**scope, "path": path})[0] is not Match.NONE for route in routes)


def _method_not_allowed(request: Request, methods: list[str]) -> Response:
    detail = f"this address does not take {request.method:.20}; it takes {', '.join(methods)}"
    return problem(405, _CODES[405], detail, headers={"Allow": ", ".join(methods)})


def _http_exception(error: HTTPException) -> Response:
    code = _CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    plain = error.detail == HTTPStatus(error.status_code).phrase
    detail = _HTTP_DETAILS.get(error.status_code, error.detail) if plain else error.detail
    return problem(error.status_code, code, detail, headers=dict(error.headers or {}))


def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(item["type"] == "json_invalid" for item in details):
        return response_of(InvalidRequest(f"the body is not JSON: {details[0]['ctx']['error']}", param="body"))
    return response_of(InvalidInput([_fault(item, error.body) for item in details[:MAX_FAULTS]]))


def _fault(item: dict[str, Any], body: Any) -> FieldError:
    place, *steps = item["loc"]
    in_body = place == "body"
    fault = as_fault(cast(ErrorDetails, item | {"loc": tuple(steps) if in_body else ()}), body)
    return fault if in_body else FieldError(pointer=f"{place}:{'/'.join(map(str, steps))}", message=fault.message)
