"""Problem documents to errors."""

import httpx
import pytest

from service.client import ApiError, Conflict, InvalidSpec, NotFound, ServiceUnavailable, TooManyRequests
from service.client.errors import as_error


def answer(status: int, document: object = None, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json=document, headers=headers)


def test_a_problem_becomes_the_error_of_its_status_with_all_that_it_says() -> None:
    error = as_error(answer(404, {"code": "not_found", "detail": "there is no job 'x'"}, {"x-request-id": "r1"}))
    assert isinstance(error, NotFound)
    assert (str(error), error.code, error.status, error.request_id) == ("there is no job 'x'", "not_found", 404, "r1")


def test_a_bad_spec_carries_every_fault() -> None:
    faults = [{"pointer": "/student", "message": "needed"}, {"pointer": "/method/temperature", "message": "above 0"}]
    error = as_error(answer(422, {"code": "invalid_spec", "detail": "…", "errors": faults}))
    assert isinstance(error, InvalidSpec)
    assert [fault.pointer for fault in error.faults] == ["/student", "/method/temperature"]


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b'["a list"]', b'{"errors": 3}'])
def test_what_is_no_problem_document_is_told_by_its_status(body: bytes) -> None:
    error = as_error(httpx.Response(502, content=body))
    assert isinstance(error, ServiceUnavailable)
    assert "502" in str(error)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "temporary"),
    [
        (429, {"retry-after": "3"}, TooManyRequests, True),
        (503, {}, ServiceUnavailable, True),
        (409, {"retry-after": "1"}, Conflict, True),
        (409, {"x-should-retry": "false"}, Conflict, False),
        (503, {"x-should-retry": "false"}, ServiceUnavailable, False),
        (418, {}, ApiError, False),
    ],
)
def test_only_what_may_mend_itself_is_worth_another_try(
    status: int, headers: dict[str, str], kind: type[ApiError], temporary: bool
) -> None:
    error = as_error(answer(status, {}, headers))
    assert type(error) is kind
    assert error.temporary is temporary
