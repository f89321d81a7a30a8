"""The error tree: each class has one stable ``code`` and one HTTP status.

    StillhouseError
     ├── InvalidInput         422 invalid_input         parameters, a form or a body; lists all errors at once
     │    └── InvalidSpec     422 invalid_spec          the same for a job spec
     ├── InvalidFile          422 invalid_file          an upload that cannot be used; names the place
     ├── InvalidRequest       400 invalid_request
     ├── Unauthenticated      401 unauthenticated
     ├── Forbidden            403 forbidden
     ├── NotFound             404 not_found
     ├── InvalidTransition    409 invalid_transition    a retry cannot succeed
     ├── Conflict             409 conflict
     ├── SecretKeyMissing     409 secret_key_missing    the service cannot encrypt
     ├── CircularDependency   422 circular_dependency   jobs that would depend on each other
     ├── QueueLimitReached    429 queue_limit_reached   the user's limit on waiting jobs
     ├── UploadLimitReached   429 upload_limit_reached  the limit on uploads that a user has not finished
     ├── PreviewLimitReached  429 preview_limit_reached the limit on previews that a user waits for
     ├── RequestInFlight      409 request_in_flight     a request with the same Idempotency-Key is in progress
     ├── IdempotencyMismatch  422 idempotency_mismatch
     ├── PreconditionFailed   412 precondition_failed
     ├── TooLarge             413 body_too_large
     ├── UnsupportedMediaType 415 unsupported_media_type
     ├── RangeNotSatisfiable  416 range_not_satisfiable
     ├── TooManyRequests      429 too_many_requests
     └── Unavailable          503 unavailable           the database or Redis is unavailable
          └── NoWorker        503 no_worker             no worker of the pool lives

The failure of a job is not raised but recorded, as a :class:`JobFailure` with a code of ``FAILURE_CODES``.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

MAX_FAULTS = 100
"""So many faults of one request are named; a hostile one has more than fit into an answer."""


class FieldError(BaseModel):
    """One error in a request: its place, and what would be allowed there."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pointer: str
    """JSON Pointer (RFC 6901) into the body; ``query:NAME``, ``header:NAME`` or ``path:NAME`` for a parameter."""
    message: str
    """What is wrong there and what would be allowed."""


class StillhouseError(Exception):
    """Base of all errors that are returned to a caller. ``detail`` says what to change."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, param: str | None = None, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class InvalidInput(StillhouseError):
    code, status = "invalid_input", 422

    def __init__(self, faults: Sequence[FieldError]) -> None:
        super().__init__(
            "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults),
            param=faults[0].pointer if faults else None,
        )
        self.faults = list(faults)


class InvalidSpec(InvalidInput):
    code = "invalid_spec"


class InvalidFile(StillhouseError):
    code, status = "invalid_file", 422


class InvalidRequest(StillhouseError):
    code, status = "invalid_request", 400


class Unauthenticated(StillhouseError):
    code, status = "unauthenticated", 401


class Forbidden(StillhouseError):
    code, status = "forbidden", 403


class NotFound(StillhouseError):
    code, status = "not_found", 404


class InvalidTransition(StillhouseError):
    code, status = "invalid_transition", 409


class Conflict(StillhouseError):
    code, status = "conflict", 409


class SecretKeyMissing(StillhouseError):
    code, status = "secret_key_missing", 409


class HandleTaken(StillhouseError):
    code, status = "handle_taken", 409


class CircularDependency(StillhouseError):
    code, status = "circular_dependency", 422


class QueueLimitReached(StillhouseError):
    code, status = "queue_limit_reached", 429


class UploadLimitReached(StillhouseError):
    code, status = "upload_limit_reached", 429


class PreviewLimitReached(StillhouseError):
    code, status, retryable = "preview_limit_reached", 429, True


class RequestInFlight(StillhouseError):
    code, status, retryable = "request_in_flight", 409, True


class IdempotencyMismatch(StillhouseError):
    code, status = "idempotency_mismatch", 422


class PreconditionFailed(StillhouseError):
    code, status = "precondition_failed", 412


class TooLarge(StillhouseError):
    code, status = "body_too_large", 413


class UnsupportedMediaType(StillhouseError):
    code, status = "unsupported_media_type", 415


class RangeNotSatisfiable(StillhouseError):
    code, status = "range_not_satisfiable", 416


class TooManyRequests(StillhouseError):
    code, status, retryable = "too_many_requests", 429, True


class Unavailable(StillhouseError):
    code, status, retryable = "unavailable", 503, True


class NoWorker(Unavailable):
    code = "no_worker"


FAILURE_CODES: dict[str, str] = {
    "invalid_spec": "The job cannot be trained as it is written.",
    "preflight_failed": "One step of it was tried before it waited for a GPU, and it cannot be trained as it is.",
    "invalid_data": "The dataset holds something that cannot be trained on.",
    "teacher_unfit": "The teacher is no better than a constant guess, or far below what its card reports.",
    "non_finite_loss": "The loss became NaN or infinite.",
    "export_mismatch": "The exported student does not give the trained student's outputs.",
    "out_of_memory": "The host or the device ran out of memory.",
    "trainer_crashed": "The training process ended without a result.",
    "trainer_error": "The training process raised an unexpected exception.",
    "worker_lost": "Its worker fell silent, or somebody killed its training, too often in a row.",
    "time_limit": "The job ran longer than resources.max_runtime_seconds.",
    "dependency_failed": "A job that this one needs did not succeed.",
    "input_unavailable": "A dataset or a model that the job names is gone.",
    "artifacts_unavailable": "The artifact store could not be written or read, or a host's disk or limits gave out.",
}


class JobFailure(BaseModel):
    """The failure of a job, its field ``error``: a code of ``FAILURE_CODES``, what happened, what to change."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    code: str
    """A stable code for programs, such as ``non_finite_loss``, ``out_of_memory`` or ``worker_lost``."""
    message: str
    """What happened, in words."""
    hint: str | None = None
    """What to change, if that is known."""
    details: dict[str, Any] = {}
    """Further fields for programs; they depend on the code."""
