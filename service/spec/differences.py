"""The fields in which specs differ."""

from collections.abc import Iterator, Sequence
from typing import Any

from service.spec.repeated_keys import step_of

ABSENT = "absent"
"""Stands for the value of a field that a spec does not have."""


def differing_fields(specs: Sequence[Any]) -> dict[str, list[Any]]:
    """The values of each field that is not the same in all specs, in their order, by JSON pointer.

    Objects are compared field by field. Lists are values: what stands at a place of one has no counterpart in another.
    """
    fields = [dict(_leaves("", spec)) for spec in specs]
    pointers = dict.fromkeys(pointer for each in fields for pointer in each)
    values = {pointer: [each.get(pointer, ABSENT) for each in fields] for pointer in pointers}
    return {pointer: of_specs for pointer, of_specs in values.items() if any(value != of_specs[0] for value in of_specs)}


def _leaves(pointer: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{pointer}/{step_of(name)}", inner)
    else:
        yield pointer, value
