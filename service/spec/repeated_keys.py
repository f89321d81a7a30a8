"""Keys that stand twice in one object of a JSON or YAML document, where every decoder keeps the last and drops the others."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from service.errors import FieldError


def repeated_in_json(text: bytes | str) -> list[FieldError]:
    """Finds the repeated keys of a document that is valid JSON, each with a pointer to it."""
    found = []
    open_values: list[tuple[str, Any]] = [("", json.loads(text, object_pairs_hook=_Pairs.of))]
    while open_values:
        pointer, value = open_values.pop()
        if isinstance(value, _Pairs):
            times = value.repeated
            found += [_fault(f"{pointer}/{_step(key)}", f"{count} times") for key, count in times.items()]
        if isinstance(value, dict):
            open_values += [(f"{pointer}/{_step(key)}", inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            open_values += [(f"{pointer}/{index}", inner) for index, inner in reversed(list(enumerate(value)))]
    return found


def repeated_in_yaml(root: yaml.Node) -> list[FieldError]:
    """Finds the repeated keys of a composed YAML document, each with a pointer to it and its lines."""
    found = []
    seen = {id(root)}
    """Anchored nodes: an alias is the node again, and may be within itself."""
    open_nodes = [("", root)]
    while open_nodes:
        pointer, node = open_nodes.pop()
        if isinstance(node, yaml.MappingNode):
            found += list(_repeated_of(node, pointer))
        for step, inner in _inner_nodes(node):
            if id(inner) not in seen:
                seen.add(id(inner))
                open_nodes.append((f"{pointer}/{_step(step)}", inner))
    return sorted(found, key=lambda fault: fault.pointer)


class _Pairs(dict[str, Any]):
    """An object of a document in which keys stand several times."""

    repeated: dict[str, int]

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) == len(pairs):
            return values
        found = cls(values)
        found.repeated = {key: count for key, count in Counter(key for key, _ in pairs).items() if count > 1}
        return found


def _repeated_of(node: yaml.MappingNode, pointer: str) -> Iterator[FieldError]:
    lines: dict[tuple[str, str], list[int]] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
    for (_, name), places in lines.items():
        if len(places) > 1:
            yield _fault(f"{pointer}/{_step(name)}", f"{len(places)} times, on lines {', '.join(map(str, places))}")


def _inner_nodes(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((str(index), value) for index, value in enumerate(node.value))


def _step(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _fault(pointer: str, times: str) -> FieldError:
    return FieldError(pointer=pointer, message=f"this field stands {times}, and only one of them could count; keep one")
