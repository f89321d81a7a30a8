"""Reads the spec of a command."""

import sys
from pathlib import Path
from typing import Any

from service.cli.failure import CommandFailed
from service.spec.parse import read_document
from service.spec.yaml_document import load_yaml


def read_spec(source: str) -> dict[str, Any]:
    """Parses a file, or standard input for ``-``; the document is not validated here."""
    if source == "-":
        try:
            document = load_yaml(sys.stdin.read())
        except ValueError as error:
            raise CommandFailed(f"standard input is not YAML: {error}") from error
    else:
        document = read_document(Path(source))
    if not isinstance(document, dict):
        raise CommandFailed(f"{source} holds no job spec: a spec is an object, not {type(document).__name__}")
    return document
