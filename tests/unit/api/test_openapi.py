"""The OpenAPI document: everything is described, every body has an example, every example is valid."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from service.api.app import create_app
from service.settings import Settings

BINARY = {"type": "string", "format": "binary"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    addresses = {"DATABASE_URL": "postgresql+psycopg://host/name", "REDIS_URL": "redis://host", "store": "file:///store"}
    return create_app(Settings.model_validate(addresses)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, by_method in document["paths"].items():
        for method, operation in by_method.items():
            yield f"{method} {path}", operation


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The media type objects of all requests and answers."""
    for place, operation in operations(document):
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{place} takes {media_type}", body
        for status, response in operation["responses"].items():
            for media_type, body in response.get("content", {}).items():
                yield f"{place} answers {status} {media_type}", body


def schemas(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema with properties, however deep; data that look like one, in examples and defaults, are none."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield place, node
        for key, inner in node.items():
            if key not in {"example", "examples", "default"}:
                yield from schemas(inner, f"{place}/{key}")
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from schemas(inner, f"{place}/{index}")


def examples(document: dict[str, Any], body: dict[str, Any]) -> list[Any]:
    """Those of a body, else those of the schemas that it names."""
    if "example" in body:
        return [body["example"]]
    schema = body["schema"]
    references = [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]
    names = [part["$ref"].rpartition("/")[2] for part in references if "$ref" in part]
    return [example for name in names for example in document["components"]["schemas"][name].get("examples", [])]


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]})


def test_every_schema_is_one_and_says_what_it_is(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {part.partition("'")[0] for part in str(document).split("'#/components/schemas/")[1:]}
    assert references <= document["components"]["schemas"].keys()


def test_every_property_says_what_it_is(document: dict[str, Any]) -> None:
    found = list(schemas(document, ""))
    silent = [
        f"{place} {name}"
        for place, schema in found
        for name, inner in schema["properties"].items()
        if not inner.get("description")
    ]
    assert len(found) > 50
    assert silent == []


def test_every_parameter_says_what_it_is(document: dict[str, Any]) -> None:
    silent = [
        f"{place} {parameter['name']}"
        for place, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]
    assert silent == []


def test_every_body_has_an_example_and_every_example_is_valid(document: dict[str, Any]) -> None:
    missing = []
    for place, body in bodies(document):
        if body["schema"] == BINARY:
            continue
        found = examples(document, body)
        for example in found:
            validator(document, body["schema"]).validate(example)
        if not found:
            missing.append(place)
    assert missing == []


def test_every_operation_is_described_has_a_success_and_names_its_problems(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for place, operation in operations(document):
        assert operation.get("description"), place
        assert any(status.startswith("2") for status in operation["responses"]), place
        if " /v1/" in place:
            assert operation["security"] == [{"key": []}], place
        for status, response in operation["responses"].items():
            if status.startswith("4") or status == "default":
                assert list(response["content"]) == ["application/problem+json"], f"{place} {status}"


@pytest.mark.parametrize(
    ("operation", "statuses"),
    [
        ("post /v1/jobs", {"200", "201", "400", "409", "413", "415", "422"}),
        ("get /v1/jobs", {"400", "422"}),
        ("patch /v1/jobs/{job_id}", {"400", "412", "413", "415", "422"}),
        ("post /v1/jobs/{job_id}/cancel", {"200", "202", "400", "409", "422"}),
        ("post /v1/jobs/{job_id}/pause", {"200", "202", "409"}),
        ("post /v1/jobs/{job_id}/resume", {"200", "202", "409"}),
        ("get /v1/jobs/{job_id}/logs", {"200", "206", "400", "416"}),
        ("get /v1/jobs/{job_id}/report", {"200", "206", "304", "416"}),
        ("get /v1/jobs/{job_id}/artifacts/{name}", {"200", "206", "302", "304", "416"}),
        ("get /v1/models/{model_id}/files/{name}", {"200", "206", "302", "304", "416"}),
    ],
)
def test_the_statuses_that_an_operation_has_are_declared(document: dict[str, Any], operation: str, statuses: set[str]) -> None:
    assert statuses <= dict(operations(document))[operation]["responses"].keys()


@pytest.mark.parametrize(
    ("operation", "headers"),
    [
        ("get /v1/jobs/{job_id}", {"If-None-Match", "Prefer"}),
        ("patch /v1/jobs/{job_id}", {"If-Match"}),
        ("get /v1/jobs/{job_id}/events", {"Accept", "Last-Event-ID"}),
        ("get /v1/jobs/{job_id}/logs", {"Accept", "Last-Event-ID", "Range"}),
        ("get /v1/jobs/{job_id}/report", {"Accept", "If-None-Match", "If-Range", "Range"}),
        ("get /v1/jobs/{job_id}/artifacts/{name}", {"If-None-Match", "If-Range", "Range"}),
        ("get /v1/models/{model_id}/files/{name}", {"If-None-Match", "If-Range", "Range"}),
    ],
)
def test_the_headers_that_an_operation_reads_are_described(document: dict[str, Any], operation: str, headers: set[str]) -> None:
    parameters = dict(operations(document))[operation]["parameters"]
    assert {parameter["name"] for parameter in parameters if parameter["in"] == "header"} == headers
