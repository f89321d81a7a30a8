"""Output of lists, as tables for people and as JSON for programs, and formatting of times and durations."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from pydantic import BaseModel
from rich.cells import cell_len, set_cell_size
from rich.table import Table

from service.cli.terminal import out

_LEAST_WIDE = 12
"""Cells that a column has which wraps."""


def print_json(what: BaseModel | Sequence[BaseModel]) -> None:
    """Prints a model as an object, several as a list."""
    if isinstance(what, BaseModel):
        typer.echo(what.model_dump_json(indent=2))
    else:
        typer.echo(json.dumps([item.model_dump(mode="json") for item in what], indent=2))


def print_rows(rows: Sequence[dict[str, Any]], *, wide: Sequence[str] = ()) -> None:
    """Prints a line for each row below the field names; the columns of ``wide`` wrap in a narrow terminal.

    In one that is too narrow for the others, each row is some lines, one for each field: nothing is cut.
    """
    shown = [{name: cell(value) for name, value in row.items()} for row in rows]
    columns = list(shown[0]) if shown else []
    widths = {name: max(map(cell_len, (name, *(row[name] for row in shown)))) for name in columns}
    if sum(min(width, _LEAST_WIDE) if name in wide else width for name, width in widths.items()) + 2 * len(columns) > out.width:
        for row in shown:
            print_fields(row)
            out.print()
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in wide)
    for row in shown:
        table.add_row(*row.values())
    out.print(table, markup=False)


def print_explained(rows: Sequence[dict[str, Any]], explanations: Sequence[str]) -> None:
    """Prints a line for each row below the field names, and under each an explanation that may be long."""
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)] if rows else []
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    indent = " " * (widths[0] + 2) if widths else ""
    for line, explanation in zip(lines, ["", *explanations], strict=True):
        texts = (set_cell_size(text, width) for text, width in zip(line, widths, strict=True))
        out.print("  ".join(texts).rstrip(), markup=False)
        if explanation:
            out.print(f"{indent}{explanation}", markup=False, style="dim")


def print_fields(fields: dict[str, Any]) -> None:
    """Prints a line for each field that has a value."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, ""):
            table.add_row(name, str(value))
    out.print(table, markup=False)


def cell(value: Any) -> str:
    """Formats a value for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {size}" for name, size in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def duration(seconds: float) -> str:
    """Formats seconds as ``8 s``, ``5 min``, ``3.2 h`` or ``1.5 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def ago(moment: datetime | None) -> str:
    """Formats how long ago a moment was; empty for None."""
    if moment is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def ahead(moment: datetime) -> str:
    """Formats how far ahead a moment is, with the local time."""
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return f"in {duration(seconds)} ({moment.astimezone():%d %b %H:%M})" if seconds >= 1 else "now"
