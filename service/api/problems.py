"""Every error as RFC 9457 ``application/problem+json``, from whatever layer it comes. Internals stay in the log.

Beside the RFC's fields stands ``error``, which clients of OpenAI-shaped APIs read.
"""

import logging
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from service.errors import Conflict, Fault, InvalidRequest, InvalidSpec, StillhouseError, Unavailable
from service.spec.parse import as_fault

MEDIA_TYPE = "application/problem+json"
_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_HTTP_DETAILS = {404: "there is nothing at this address; /openapi.json lists what there is"}

logger = logging.getLogger(__name__)


class ErrorObject(BaseModel):
    """The same error, in the shape that OpenAI-like clients read."""

    message: str
    type: str
    param: str | None = None
    code: str


class Problem(BaseModel):
    """What went wrong and what to change (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "/method/temperature: Input should be greater than 0 (got 0.0)",
                    "code": "invalid_spec",
                    "errors": [{"pointer": "/method/temperature", "message": "Input should be greater than 0 (got 0.0)"}],
                    "error": {
                        "message": "/method/temperature: Input should be greater than 0 (got 0.0)",
                        "type": "invalid_request_error",
                        "param": "/method/temperature",
                        "code": "invalid_spec",
                    },
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[Fault] | None = None
    """Every fault of a body at once, each with a JSON Pointer into it."""
    error: ErrorObject


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    param: str | None = None,
    faults: list[Fault] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """One problem as a response."""
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
    return JSONResponse(body.model_dump(exclude_none=True), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Puts a handler in place for each kind of error that a request can meet."""
    app.add_exception_handler(StillhouseError, _stillhouse_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    for away in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(IntegrityError, _changed_meanwhile)
    app.add_exception_handler(DataError, _unstorable)


def response_of(error: StillhouseError) -> Response:
    """An error of the project's own tree as a response."""
    headers = {}
    if error.retry_after_seconds is not None or isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_seconds or 2)
    if error.status == 409 and not error.retryable:
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="stillhouse"'
    faults = error.faults if isinstance(error, InvalidSpec) else None
    return problem(error.status, error.code, error.detail, param=error.param, faults=faults, headers=headers)


def described(*errors: type[StillhouseError]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route for OpenAPI: which problems it has of its own."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        known = by_status.get(error.status, {}).get("description")
        description = f"{known}, {error.code}" if known else error.code
        by_status[error.status] = {"description": description, "content": problem_content()}
    return by_status


def problem_content() -> dict[str, Any]:
    """OpenAPI's media type object of a problem."""
    return {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _stillhouse_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StillhouseError)
    return response_of(error)


def _http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "error")
    plain = error.detail == HTTPStatus(error.status_code).phrase
    detail = _HTTP_DETAILS.get(error.status_code, error.detail) if plain else error.detail
    return problem(error.status_code, code, detail, headers=dict(error.headers or {}))


def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(item["type"] == "json_invalid" for item in details):
        return response_of(InvalidRequest(f"the body is not JSON: {details[0]['ctx']['error']}", param="body"))
    faults = [_fault(item, error.body) for item in details]
    detail = "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults)
    return problem(422, InvalidRequest.code, detail, param=faults[0].pointer, faults=faults)


def _fault(item: dict[str, Any], body: Any) -> Fault:
    place, *steps = item["loc"]
    in_body = place == "body"
    fault = as_fault(cast(ErrorDetails, item | {"loc": tuple(steps) if in_body else ()}), body)
    return fault if in_body else Fault(pointer=f"{place}:{'/'.join(map(str, steps))}", message=fault.message)


def _database_away(_request: Request, error: Exception) -> Response:
    logger.error("the database does not answer: %s", error)
    return response_of(Unavailable("the database does not answer at this moment; try again", retry_after_seconds=2))


def _changed_meanwhile(_request: Request, error: Exception) -> Response:
    logger.warning("two requests met: %s", error)
    conflict = Conflict("another request changed this at the same moment; look at it again")
    response = response_of(conflict)
    del response.headers["x-should-retry"]
    response.headers["Retry-After"] = "1"
    return response


def _unstorable(_request: Request, error: Exception) -> Response:
    logger.warning("the database refused a value: %s", error)
    return response_of(InvalidRequest("a value in this request is outside what can be stored"))
