"""Where documents differ: each place that is not the same in all, by its JSON pointer."""

from collections.abc import Iterator, Sequence
from typing import Any

ABSENT = "–"


def differing(documents: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """Each differing place as (JSON pointer, its value in each document in words), in the order of the documents.

    Objects are compared field by field; lists and values whole. The field ``name`` of the whole is left out: it is no choice.
    """
    return [(pointer, values) for pointer, values in _differing(documents, "") if pointer != "/name"]


def _differing(values: Sequence[Any], pointer: str) -> Iterator[tuple[str, list[str]]]:
    if not all(isinstance(value, dict) for value in values):
        if len({repr(value) for value in values}) > 1:  # by ``==`` alone 1 would be True
            yield pointer, [ABSENT if value is _MISSING else _words(value) for value in values]
        return
    for name in dict.fromkeys(name for value in values for name in value):
        step = str(name).replace("~", "~0").replace("/", "~1")
        yield from _differing([value.get(name, _MISSING) for value in values], f"{pointer}/{step}")


def _words(value: Any) -> str:
    return value if isinstance(value, str) else "null" if value is None else str(value)


_MISSING = object()
