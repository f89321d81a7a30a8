"""The fields in which specs differ."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from service.spec.repeated_keys import step_of

ABSENT = "–"
"""Stands for the value of a field that a spec does not have."""


def differing_fields(specs: Sequence[Any]) -> dict[str, list[Any]]:
    """The values of each field that is not the same in all specs, in their order, by JSON pointer.

    Objects are compared field by field; lists and values whole. The name of the whole is left out: it is no choice.
    """
    return {pointer: values for pointer, values in _differing(specs, "") if pointer != "/name"}


def value_text(value: Any) -> str:
    """A value for people: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _differing(values: Sequence[Any], pointer: str) -> Iterator[tuple[str, list[Any]]]:
    if not all(isinstance(value, dict) for value in values):
        if len({repr(value) for value in values}) > 1:  # by ``==`` alone 1 would be True
            yield pointer, list(values)
        return
    for name in dict.fromkeys(name for value in values for name in value):
        yield from _differing([value.get(name, ABSENT) for value in values], f"{pointer}/{step_of(name)}")
