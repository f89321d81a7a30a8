"""The OpenAPI document: FastAPI's own, with the job spec as a schema and every error as a problem."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.problems import Problem, problem_content
from service.api.views.data import ModelView
from service.api.views.jobs import SPEC_EXAMPLE, JobView
from service.spec import JobSpec

_REF = "#/components/schemas/{model}"
_ABOUT = """A team distils large models into small ones on shared GPUs: submit a job spec, follow it, download the student.

Every answer carries `X-Request-Id`; every error is an RFC 9457 problem."""
_ANY = {
    "401": "No key, or one that is not valid.",
    "429": "Too many requests with this key; see `Retry-After`.",
    "503": "The database is away; see `Retry-After`.",
}


def install(app: FastAPI) -> None:
    """Makes the document at its first reading."""

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
    # FastAPI drops whatever is null, from examples too: these are pydantic's own.
    for model in (JobSpec, Problem, JobView, ModelView):
        schema = model.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    schemas["JobSpec"]["examples"] = [SPEC_EXAMPLE]
    schemas["JobView"]["properties"]["spec"] |= {"$ref": _REF.format(model="JobSpec")}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if path.startswith("/v1/"):
                for status, description in _ANY.items():
                    responses.setdefault(status, {"description": description, "content": problem_content()})
            if "422" in responses:
                responses["422"]["content"] = problem_content()
            responses.setdefault("default", {"description": "Any other problem.", "content": problem_content()})
    return document
