"""What a client can meet; the tree stands in ``service.client``. A problem document becomes the class of its code or status."""

from typing import Any

import httpx
from pydantic import ValidationError

from service.errors import FieldError


class ClientError(Exception):
    """Base of every error of the client."""


class InvalidId(ClientError, ValueError):
    """Nothing can have that id."""


class Unreachable(ClientError):
    """Nobody answers at that address."""


class WaitTimeout(ClientError, TimeoutError):
    """The job did not end in time; it goes on."""


class CorruptDownload(ClientError):
    """The bytes are not those that the service recorded."""


class ApiError(ClientError):
    """The service answered with a problem. ``str()`` is what a person should read."""

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
    """The spec has faults; ``faults`` names them all."""


class Unauthenticated(ApiError):
    """No key, or one that is not valid."""


class Forbidden(ApiError):
    """The key's role may not do this."""


class NotFound(ApiError):
    """There is no such thing."""


class Conflict(ApiError):
    """The thing is in a state that forbids this."""


class PreconditionFailed(ApiError):
    """It changed since it was read."""


class TooLarge(ApiError):
    """The body is above the service's limit."""


class TooManyRequests(ApiError):
    """This key asks too often."""


class QueueLimitReached(ApiError):
    """As many of the user's jobs wait as may."""


class ServiceUnavailable(ApiError):
    """The service, or what it needs, is away for the moment."""


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
    """The error that an answer stands for; the body, already read, need not be a problem document (a proxy's is not)."""
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
    """The Retry-After header in its form of seconds, which is the one that the service sends."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _is_temporary(response: httpx.Response) -> bool:
    """Whether the same request may succeed a little later."""
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
