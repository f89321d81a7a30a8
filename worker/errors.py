"""The exceptions that end a training early, or keep it from its start: a fault of the job, or a request to stop."""

from typing import Any

from worker.protocol import StopRequest


class JobFault(Exception):
    """The job cannot go on; ``code`` is one of ``service.errors.FAILURE_CODES``."""

    def __init__(
        self, code: str, message: str, *, hint: str | None = None, details: dict[str, Any] | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details or {}
        self.retryable = retryable


class UnfitTraining(ValueError):
    """A network cannot be trained as its ``training`` says; ``field`` is the place in it, ``optimizer/name`` say."""

    def __init__(self, field: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.field, self.message, self.hint = field, message, hint


class StopAsked(Exception):
    """A stop was requested; raised between two optimizer steps."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request.reason)
        self.request = request
