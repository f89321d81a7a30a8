"""Reads the spec of a command, and tells the faults of it with their lines."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from service.cli.failure import USAGE, CommandFailed
from service.cli.terminal import err
from service.client import InvalidSpec
from service.errors import FieldError
from service.errors import InvalidSpec as InvalidSpecFile
from service.spec.yaml_document import load_yaml, yaml_places


@contextmanager
def open_spec(source: str, *, as_json: bool = False) -> Iterator[dict[str, Any]]:
    """Parses a file, or standard input for ``-``; the document is not validated here.

    A chat template that is ``@`` and a path is that file's text; the path is relative to the spec. Faults of the spec that are
    raised inside end the command, each with its line: for people, or with ``as_json`` for programs.
    """
    text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    name = "standard input" if source == "-" else source
    try:
        yield _document(text, name, Path() if source == "-" else Path(source).parent)
    except (InvalidSpec, InvalidSpecFile) as error:
        if not error.faults:
            raise
        _print_faults(error.faults, yaml_places(text), name, as_json=as_json)
        raise typer.Exit(USAGE) from None


def _document(text: str, name: str, folder: Path) -> dict[str, Any]:
    try:
        document = load_yaml(text)
    except ValueError as error:
        raise CommandFailed(f"{name} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise CommandFailed(f"{name} holds no job spec: a spec is an object, not {type(document).__name__}")
    dataset = document.get("dataset")
    if isinstance(dataset, dict):
        template = dataset.get("chat_template")
        if isinstance(template, str) and template.startswith("@") and "{" not in template:
            document |= {"dataset": dataset | {"chat_template": _template(folder / template[1:])}}
    return document


def _template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CommandFailed(f"the chat template {path} cannot be read: {error}") from error


def _print_faults(faults: list[FieldError], places: dict[str, tuple[int, int]], name: str, *, as_json: bool) -> None:
    placed = [(fault, *_place(fault.pointer, places)) for fault in faults]
    if as_json:
        fields = [fault.model_dump() | {"line": line, "column": column} for fault, line, column in placed]
        typer.echo(json.dumps({"errors": fields}, indent=2))
        return
    err.print("error: ", style="bold red", end="")
    err.print(f"the spec has {len(faults)} {'fault' if len(faults) == 1 else 'faults'}:")
    for fault, line, column in placed:
        text = f"  {name}:{line}:{column}: {fault.pointer or '/'}: {fault.message}"
        err.print(text, markup=False)


def _place(pointer: str, places: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Line and column of a field; of one that is not written, or comes by an alias, those of what it would stand in."""
    while pointer not in places and pointer:
        pointer = pointer.rpartition("/")[0]
    return places.get(pointer, (1, 1))
