"""The OpenAPI document as the judge of answers: each is one that the document tells of, in status, media type and body."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from service.errors import StillhouseError

PROBLEM = "application/problem+json"


class Contract:
    """What the document says of each operation."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = document["components"]
        self._operations = {re.compile(_pattern(path), re.DOTALL): operations for path, operations in document["paths"].items()}

    def check(self, response: httpx.Response) -> None:
        """Raises AssertionError. It is a hook for httpx clients, which call it before the body of an answer is read."""
        request = response.request
        place = f"{request.method} {request.url.path} answered {response.status_code}"
        declared = self._responses(request).get(str(response.status_code))
        assert declared is not None, f"{place}, of which the document says nothing"
        if request.method == "HEAD" or "content" not in declared:
            return
        media_type = response.headers.get("content-type", "").partition(";")[0]
        content = declared["content"]
        assert any(fnmatch(media_type, pattern) for pattern in content), f"{place} with {media_type}, not with {list(content)}"
        schema = content.get(media_type, {}).get("schema", {})
        if media_type.endswith("json") and schema and schema.get("format") != "binary":
            response.read()
            self._check_body(response.json(), schema, place)
        if media_type == PROBLEM:
            code = response.json()["code"]
            assert STATUSES.get(code, response.status_code) == response.status_code, f"{place} with the code {code}"

    def _responses(self, request: httpx.Request) -> dict[str, Any]:
        """By status. What the document does not have is a problem, its own address apart."""
        method = "get" if request.method == "HEAD" else request.method.lower()
        for pattern, operations in self._operations.items():
            if method in operations and pattern.fullmatch(request.url.path):
                responses: dict[str, Any] = operations[method]["responses"]
                return responses
        problem = {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        return {"200": {}, "400": problem, "404": problem, "405": problem, "414": problem}

    def _check_body(self, body: Any, schema: dict[str, Any], place: str) -> None:
        validator = Draft202012Validator({**schema, "components": self._components})
        for error in validator.iter_errors(body):
            raise AssertionError(f"{place} with a body that is not as the document says: {error.json_path}: {error.message}")


def _pattern(path: str) -> str:
    """A file's name, alone of all parameters, may have slashes."""
    return re.sub(r"\\{(\w+)\\}", lambda found: ".+" if found[1] == "name" else "[^/]+", re.escape(path))


def _codes(kind: type[StillhouseError]) -> Iterator[tuple[str, int]]:
    yield kind.code, kind.status
    for narrower in kind.__subclasses__():
        yield from _codes(narrower)


STATUSES = dict(_codes(StillhouseError))
"""The one status of each code of the error tree."""
