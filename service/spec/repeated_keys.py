"""Keys that stand twice in one object of a document, where decoders keep the last and drop the others."""

import json
from collections import Counter
from typing import Any

from service.errors import MAX_FAULTS, FieldError


def repeated_in_json(text: bytes | str) -> list[FieldError]:
    """Finds the repeated keys of a document that is valid JSON, each with a pointer to it; MAX_FAULTS of them at most."""
    repeated: dict[int, tuple[dict[str, Any], dict[str, int]]] = {}
    """An object, by its identity, and how often each such key stands in it. One that is itself dropped must not be freed yet."""

    def unite(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated[id(values)] = (values, {key: count for key, count in counts.items() if count > 1})
        return values

    found: list[FieldError] = []
    open_values: list[tuple[str, Any]] = [("", json.loads(text, object_pairs_hook=unite))]
    while repeated and open_values and len(found) < MAX_FAULTS:
        pointer, value = open_values.pop()
        if isinstance(value, dict):
            _, counts = repeated.get(id(value), (value, {}))
            found += [repeated_fault(f"{pointer}/{step_of(key)}", f"{count} times") for key, count in counts.items()]
            open_values += [(f"{pointer}/{step_of(key)}", inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            open_values += [(f"{pointer}/{index}", inner) for index, inner in reversed(list(enumerate(value)))]
    return found[:MAX_FAULTS]


def step_of(key: str) -> str:
    """The key as a step of a JSON Pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def repeated_fault(pointer: str, times: str) -> FieldError:
    """The fault of one key that stands twice, wherever it was found."""
    return FieldError(pointer=pointer, message=f"this field stands {times}, and only one of them could count; keep one")
