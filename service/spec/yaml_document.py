"""Reads a YAML document into plain values, in one pass over its events, with bounds that hold before anything is built.

What stands plain and reads as a number, as true, false or null in JSON is that; all else is text: ``yes``, ``2026-02-30``.
Refused, each with its line and column: tags, directives, keys that are no text, too deep a nesting, too many values.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from service.errors import MAX_FAULTS, FieldError, InvalidSpec
from service.spec.repeated_keys import repeated_fault, step_of

MAX_DEPTH = 64
MAX_VALUES = 50_000
"""Values and keys of one document, those behind an alias each time."""
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_MAX_DIGITS = 20
"""A 64-bit integer with its sign."""
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
"""libyaml compares each with all before it, and so needs minutes for a body full of them."""
_MERGE = "<<"
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it, which is ten times as fast."""


class NotYaml(ValueError):
    """A text is not YAML, or more of it than a document of plain values may have. The message begins with the place."""


def load_yaml(text: str, *, aliases: bool = True) -> Any:
    """Decodes YAML, and JSON, to plain values. ``aliases``: whether ``*name`` and ``<<`` may repeat what was written before.

    Raises:
        NotYaml: at the first fault.
        InvalidSpec: keys stand twice in one object; all of them are named.
    """
    if (directive := _DIRECTIVE.search(text)) is not None:
        line = text.count("\n", 0, directive.start()) + 1
        raise NotYaml(f"line {line}, column 1: a document has no directives (%)")
    reading = _Reading(aliases=aliases)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reading.take(event)
    except yaml.MarkedYAMLError as error:
        raise _at(error.problem_mark, error.problem or error.context or "this is no YAML") from error
    except yaml.reader.ReaderError as error:
        raise NotYaml(f"character {error.position}: {error.reason}") from error
    if reading.repeated:
        raise InvalidSpec(sorted(reading.repeated[:MAX_FAULTS], key=lambda fault: fault.pointer))
    return reading.document


def yaml_places(text: str) -> dict[str, tuple[int, int]]:
    """Line and column of each value that stands in a document, by its JSON pointer; of an object's field, where its name is.

    The text is one that :func:`load_yaml` reads.
    """
    places: dict[str, tuple[int, int]] = {}
    root = yaml.compose(text, Loader=_LOADER)
    nodes = [] if root is None else [("", root, root)]
    while nodes:
        pointer, named, node = nodes.pop()
        places[pointer] = _place(named.start_mark)
        if isinstance(node, yaml.MappingNode):
            nodes += [
                (f"{pointer}/{step_of(key.value)}", key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)
            ]
        elif isinstance(node, yaml.SequenceNode):
            nodes += [(f"{pointer}/{number}", value, value) for number, value in enumerate(node.value)]
    return places


@dataclass
class _Open:
    """A collection whose end has not come yet."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    num_values_before: int
    key: str | None = None
    """Of an object: the key whose value comes next."""
    lines: dict[str, list[int]] = field(default_factory=dict)
    """Of an object: where each key stands."""
    merged: list[dict[str, Any]] = field(default_factory=list)


class _Reading:
    """Builds the document from the events."""

    def __init__(self, *, aliases: bool) -> None:
        self.document: Any = None
        self.repeated: list[FieldError] = []
        self._aliases = aliases
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[Any, int]] = {}
        """Values by anchor, each with the number of values in it."""
        self._num_documents = self._num_values = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._num_documents += 1
                if self._num_documents > 1:
                    raise _at(event.start_mark, "a second document begins here; there may be one")
            case yaml.AliasEvent():
                value, num_values = self._aliased(event)
                self._count(num_values, event)
                self._add(value, event, is_plain=False)
            case yaml.ScalarEvent():
                self._count(1, event)
                value = _scalar(event)
                if event.anchor is not None:
                    self._anchored[event.anchor] = (value, 1)
                self._add(value, event, is_plain=event.implicit[0])
            case yaml.CollectionStartEvent():
                self._count(1, event)
                self._begin(event)
            case yaml.CollectionEndEvent():
                self._end(event)

    def _aliased(self, event: yaml.AliasEvent) -> tuple[Any, int]:
        if not self._aliases:
            raise _at(event.start_mark, f"a spec may not use aliases (*{event.anchor:.80}); write the value out")
        if event.anchor not in self._anchored:
            raise _at(event.start_mark, f"*{event.anchor:.80} repeats what has no end before this place")
        return self._anchored[event.anchor]

    def _count(self, num_values: int, event: yaml.Event) -> None:
        self._num_values += num_values
        if self._num_values > MAX_VALUES:
            raise _at(event.start_mark, f"there are more than {MAX_VALUES:,} values up to here")

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            raise _at(event.start_mark, _no_tags(event.tag))
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise _at(event.start_mark, "a field's name must be text")
        if len(self._open) == MAX_DEPTH:
            raise _at(event.start_mark, f"values may be nested {MAX_DEPTH} levels deep")
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Open(value, event.anchor, self._num_values - 1))

    def _end(self, event: yaml.Event) -> None:
        ended = self._open.pop()
        if isinstance(ended.value, dict):
            for merged in ended.merged:
                ended.value = merged | ended.value
            pointer = "".join(f"/{step_of(_last_step(outer))}" for outer in self._open)
            for key, lines in ended.lines.items():
                if len(lines) > 1:
                    on_lines = f"{len(lines)} times, on lines {', '.join(map(str, lines[:10]))}"
                    self.repeated.append(repeated_fault(f"{pointer}/{step_of(key)}", on_lines))
        if ended.anchor is not None:
            self._anchored[ended.anchor] = (ended.value, self._num_values - ended.num_values_before)
        self._add(ended.value, event, is_plain=False)

    def _add(self, value: Any, event: yaml.Event, *, is_plain: bool) -> None:
        if not self._open:
            self.document = value
            return
        into = self._open[-1]
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is None:
            if not isinstance(value, str):
                raise _at(event.start_mark, f"a field's name must be text, not {value!r:.80}; write it in quotes")
            into.key = value
            into.lines.setdefault(value, []).append(_place(event.start_mark)[0])
        elif into.key == _MERGE and self._aliases:
            into.merged += _to_merge(value, event)
            into.key = None
        else:
            into.value[into.key] = value
            into.key = None


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    if event.tag is not None:
        raise _at(event.start_mark, _no_tags(event.tag))
    text = event.value
    if not event.implicit[0]:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise _at(event.start_mark, "integers have at most 64 bits")
        return int(text)
    if _NUMBER.fullmatch(text):
        if not math.isfinite(number := float(text)):
            raise _at(event.start_mark, "numbers must be finite")
        return number
    return text


def _to_merge(value: Any, event: yaml.Event) -> list[dict[str, Any]]:
    merged = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in merged):
        raise _at(event.start_mark, f"{_MERGE} takes an object, or a list of some")
    return merged


def _last_step(outer: _Open) -> str:
    return outer.key or "" if isinstance(outer.value, dict) else str(len(outer.value))


def _no_tags(tag: str) -> str:
    return f"a document has no tags ({tag.replace('tag:yaml.org,2002:', '!!')!s:.80}); write the value alone, text in quotes"


def _at(mark: Any, message: str) -> NotYaml:
    line, column = _place(mark)
    return NotYaml(f"line {line}, column {column}: {message}")


def _place(mark: Any) -> tuple[int, int]:
    """Line and column as people count. An event and an error of libyaml or of PyYAML have a mark, whatever their types say."""
    return mark.line + 1, mark.column + 1
