"""The OpenAPI document: FastAPI's, with the schema of the job spec, examples, and problem responses for every error."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.examples import EXAMPLES
from service.api.problems import Problem, described, problem_content
from service.errors import InvalidInput, InvalidRequest, TooLarge, UnsupportedMediaType
from service.spec import JobSpec
from service.spec.report import Report

_REF = "#/components/schemas/{model}"
_ABOUT = """A team distils large models into small ones on shared GPUs: submit a job spec, follow it, download the student.

Every answer carries `X-Request-Id`; every error is an RFC 9457 problem."""
_ANY = {
    "400": "invalid_request",
    "401": "The key is missing or invalid.",
    "414": "The address is too long.",
    "429": "Too many requests with this key; see `Retry-After`.",
    "503": "The database is unavailable; see `Retry-After`.",
}


def install(app: FastAPI) -> None:
    """Replaces ``app.openapi``; the document is generated when it is first requested."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=version("stillhouse"), description=_ABOUT, routes=app.routes, separate_input_output_schemas=False
    )
    schemas = document["components"]["schemas"]
    # Models that appear in no route's signature.
    for model in (JobSpec, Problem, Report):
        schema = model.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    schemas["JobView"]["properties"]["spec"] |= {"$ref": _REF.format(model="JobSpec")}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    # FastAPI would drop every null field of an example.
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(operation, is_keyed=path.startswith("/v1/"))
    return document


def _complete(operation: dict[str, Any], *, is_keyed: bool) -> None:
    """Adds the problem responses that many operations share. ``is_keyed``: the operation requires an API key."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        responses["422"] = described(InvalidInput)[422]
    if "requestBody" in operation:
        for status, response in described(InvalidRequest, TooLarge, UnsupportedMediaType).items():
            responses.setdefault(str(status), response)
    if is_keyed:
        for status, description in _ANY.items():
            responses.setdefault(status, {"description": description, "content": problem_content()})
    responses.setdefault("default", {"description": "Any other problem.", "content": problem_content()})
