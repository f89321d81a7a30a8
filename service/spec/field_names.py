"""The names of fields that may stand at a place of a spec, by its JSON Schema; and the one that a misspelt name means."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from service.spec.job import JobSpec


def field_names(location: Sequence[str | int]) -> list[str]:
    """The fields of the object at a location as pydantic gives it: it has the tags of unions, which a document has not."""
    places = list(_alternatives(_schema()))
    for step in location:
        places = [found for place in places for found in _at(place, step)] or places
    return sorted({name for place in places for name in place.get("properties", {})})


def unknown_field(location: Sequence[str | int]) -> str:
    """Says of a field that is unknown which one is likely meant, and which there are."""
    names = field_names(location[:-1])
    meant = "".join(f" Did you mean {each}?" for each in get_close_matches(str(location[-1]), names, n=1))
    return f"this field is unknown.{meant} There are: {', '.join(names)}"


def _at(place: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
    inner = place.get("items") if isinstance(step, int) else place.get("properties", {}).get(step)
    if inner is None and isinstance(place.get("additionalProperties"), dict):
        inner = place["additionalProperties"]
    if inner is not None:
        yield from _alternatives(inner)
    elif place.get("properties", {}).get("name", {}).get("const") == step:
        yield place


def _alternatives(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    branches = [branch for kind in ("anyOf", "oneOf", "allOf") for branch in schema.get(kind, ())]
    if not branches:
        yield schema
    for branch in branches:
        yield from _alternatives(branch)


@cache
def _schema() -> dict[str, Any]:
    return JobSpec.model_json_schema()
