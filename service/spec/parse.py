"""Reads text into a spec: every fault at once, each with its place and what is allowed there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.errors import MAX_FAULTS, FieldError, InvalidSpec
from service.spec.field_names import unknown_field
from service.spec.job import JobSpec
from service.spec.yaml_document import load_yaml

_UNKNOWN = "this field is unknown; remove it"
_OF_A_KEY = "[key]"
"""The step that pydantic adds to the path of a key whose name is at fault; the document has no such step."""


def parse_spec(document: Any) -> JobSpec:
    """Reads a decoded JSON or YAML document.

    Raises:
        InvalidSpec: with a fault for each thing that is wrong.
    """
    if not isinstance(document, dict):
        raise InvalidSpec([FieldError(pointer="", message=f"a job spec is an object, not {type(document).__name__}")])
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidSpec([as_fault(details, document, unknown_field) for details in error.errors()[:MAX_FAULTS]]) from error


def load_spec(path: Path) -> JobSpec:
    """Reads a YAML (or JSON) file.

    Raises:
        InvalidSpec: the file is no YAML, or no spec, or a key stands twice in it.
        OSError: the file cannot be read.
    """
    return parse_spec(read_document(path))


def read_document(path: Path) -> Any:
    """Decodes a YAML (or JSON) file without checking what it says. Raises what ``load_spec`` raises but for a spec's faults."""
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidSpec([FieldError(pointer="", message=f"{path} is not YAML: {error}")]) from error


def as_fault(
    details: ErrorDetails, document: Any, unknown: Callable[[Sequence[str | int]], str] = lambda location: _UNKNOWN
) -> FieldError:
    """Turns an error of pydantic into a pointer into ``document`` and a sentence; ``unknown`` makes that of an unknown field."""
    steps: list[str] = []
    place: Any = document
    message = unknown(details["loc"]) if details["type"] == "extra_forbidden" else _sentence(details)
    for step in details["loc"]:
        if step == _OF_A_KEY and not (isinstance(place, dict) and step in place):
            message = f"in this field's name: {message}"
            continue
        # pydantic names the branch of a tagged union in the path; the document has no such step. A missing field has none either.
        is_missing_field = details["type"] == "missing" and step == details["loc"][-1]
        if isinstance(place, dict) and step not in place and step == place.get("name", step) and not is_missing_field:
            continue
        if isinstance(step, str) and (
            place is None or isinstance(place, list | str | int | float)
        ):  # nor has what is no object at all
            continue
        steps.append(str(step).replace("~", "~0").replace("/", "~1"))
        place = _descend(place, step)
    if details["type"].startswith("union_tag") and not isinstance(place, str):  # a bare name has no field of that name
        steps.append("name")
    return FieldError(pointer="".join(f"/{step}" for step in steps), message=message)


def _descend(place: Any, step: str | int) -> Any:
    try:
        return place[step]
    except (KeyError, IndexError, TypeError):
        return None


def _sentence(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "this field is needed"
        case "union_tag_invalid":
            return f"{context['tag']!r} is not known here; use one of {context['expected_tags']}"
        case "union_tag_not_found":
            return "a name is needed here"
        case "value_error":
            return str(context["error"])
        case _:
            return f"{details['msg']} (got {details['input']!r:.80})"
