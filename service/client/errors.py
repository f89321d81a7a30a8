"""The errors of the client; ``service.client`` shows their tree. A problem's code or status selects the class of an ApiError."""

from typing import Any

import httpx
from pydantic import ValidationError

from service.errors import FieldError, JobFailure


class ClientError(Exception):
    """Base of every error of the client."""


class InvalidId(ClientError, ValueError):
    """The string cannot be an id."""


class Unreachable(ClientError):
    """No service answers at the address."""


class WaitTimeout(ClientError, TimeoutError):
    """The job did not end in time; it continues."""


class PreviewFailed(ClientError):
    """No preview can be made of the spec; ``failure`` says why, as a job's check would."""

    def __init__(self, failure: JobFailure) -> None:
        place = failure.details.get("pointer")
        super().__init__(f"{failure.code}{f' at {place}' if place else ''}: {failure.message}")
        self.failure = failure


class CorruptDownload(ClientError):
    """The SHA-256 of a download differs from the recorded one."""


class ApiError(ClientError):
    """The service returned a problem. ``str()`` is its detail, which is written for people."""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        faults: list[FieldError],
        retry_after_seconds: float | None,
        request_id: str | None,
        temporary: bool,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.faults = faults
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        self.temporary = temporary


class InvalidSpec(ApiError):
    """The spec is invalid; ``faults`` lists all of its errors."""


class Unauthenticated(ApiError):
    """The key is missing or invalid."""


class Forbidden(ApiError):
    """The key's role may not do this."""


class NotFound(ApiError):
    """The resource does not exist."""


class Conflict(ApiError):
    """The state of the resource does not allow the request."""


class PreconditionFailed(ApiError):
    """The resource has changed since it was read."""


class TooLarge(ApiError):
    """The body is above the service's limit."""


class TooManyRequests(ApiError):
    """The key has exceeded its rate limit."""


class QueueLimitReached(ApiError):
    """The user has reached the limit on waiting jobs."""


class ServiceUnavailable(ApiError):
    """The service, or something that it depends on, is unavailable at the moment."""


_BY_CODE: dict[str, type[ApiError]] = {"invalid_spec": InvalidSpec, "queue_limit_reached": QueueLimitReached}
_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    429: TooManyRequests,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}


def as_error(response: httpx.Response) -> ApiError:
    """Converts an error response. Its body, already read, need not be a problem document: it may come from a proxy."""
    problem = _document(response)
    code = str(problem.get("code") or f"http_{response.status_code}")
    detail = str(problem.get("detail") or problem.get("title") or f"{response.status_code} {response.reason_phrase}")
    error_type = _BY_CODE.get(code) or _BY_STATUS.get(response.status_code) or ApiError
    return error_type(
        detail,
        status=response.status_code,
        code=code,
        faults=_faults(problem.get("errors")),
        retry_after_seconds=retry_after_seconds(response),
        request_id=response.headers.get("x-request-id"),
        temporary=_is_temporary(response),
    )


def retry_after_seconds(response: httpx.Response) -> float | None:
    """The value of Retry-After if it is a number of seconds, the form that the service sends."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _is_temporary(response: httpx.Response) -> bool:
    """Whether the same request may succeed later."""
    if response.headers.get("x-should-retry") == "false":
        return False
    return response.status_code in {429, 502, 503, 504} or (response.status_code == 409 and "retry-after" in response.headers)


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _faults(errors: Any) -> list[FieldError]:
    try:
        return [FieldError.model_validate(error) for error in errors or []]
    except (ValidationError, TypeError):
        return []
