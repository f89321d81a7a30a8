"""Reads the spec of a command."""

import sys
from pathlib import Path
from typing import Any

from service.cli.failure import CommandFailed
from service.spec.parse import read_document
from service.spec.yaml_document import load_yaml


def read_spec(source: str) -> dict[str, Any]:
    """Parses a file, or standard input for ``-``; the document is not validated here.

    A chat template that is ``@`` and a path is that file's text; the path is relative to the spec.
    """
    if source == "-":
        try:
            document = load_yaml(sys.stdin.read())
        except ValueError as error:
            raise CommandFailed(f"standard input is not YAML: {error}") from error
    else:
        document = read_document(Path(source))
    if not isinstance(document, dict):
        raise CommandFailed(f"{source} holds no job spec: a spec is an object, not {type(document).__name__}")
    dataset = document.get("dataset")
    if isinstance(dataset, dict):
        template = dataset.get("chat_template")
        if isinstance(template, str) and template.startswith("@") and "{" not in template:
            folder = Path() if source == "-" else Path(source).parent
            document |= {"dataset": dataset | {"chat_template": _text(folder / template[1:])}}
    return document


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CommandFailed(f"the chat template {path} cannot be read: {error}") from error
