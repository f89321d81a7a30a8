"""Commands on datasets, models and the catalogue of what a spec may name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from service.cli.application import AsJson
from service.cli.dataset_card import print_dataset
from service.cli.failure import CommandFailed
from service.cli.report_card import size_text
from service.cli.tables import cell, print_fields, print_json, print_rows
from service.cli.terminal import err, out
from service.client import Client, Dataset, Model


def register(app: typer.Typer) -> None:
    """Adds the commands, in the order of the help page."""
    for command in (upload, datasets, models, name, catalogue):
        app.command(rich_help_panel="Datasets and models")(command)


def upload(
    path: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="npz, Parquet, JSON Lines, CSV, a zip or tar of class folders; with --model a folder, or its zip or tar.",
        ),
    ],
    *,
    name: Annotated[str | None, typer.Option(help="By default the file's name.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Its task; by default what its files or columns tell, or for a model its config.")
    ] = None,
    input_column: Annotated[
        str | None, typer.Option(help="The input column; by default image, text or audio. For pairs of texts two, as a,b.")
    ] = None,
    target_column: Annotated[
        str | None, typer.Option(help="The column to predict, or several as a,b,c; by default label if the task has one.")
    ] = None,
    weight_column: Annotated[str | None, typer.Option(help="The column of the rows' weights, for dataset.weight.")] = None,
    skip_broken: Annotated[
        bool,
        typer.Option("--skip-broken", help="Leave rows out whose image or sound cannot be read, rather than refuse the file."),
    ] = False,
    model: Annotated[
        bool,
        typer.Option(
            "--model", help="Upload a network (a from_pretrained folder, or a zip or tar of one) rather than a dataset."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a dataset, or with --model a network. A folder that broke off goes on where it was."""
    if path.is_dir() and not model:
        raise CommandFailed(f"{path} is a folder: pack a dataset as a zip or tar, or add --model for the folder of a network")
    path = path.resolve()  # "." has no name
    with Client() as client, err.status(f"uploading {path.name}") as status:

        def tell(file: str, num_bytes: int, size: int) -> None:
            status.update(f"uploading {path.name}: {file}, {num_bytes / max(size, 1):.0%}")

        if model:
            default = path.name if path.is_dir() else path.stem
            stored: Model | Dataset = client.upload_model(path, name=name or default, task=task, on_sent=tell)
            source = f"model:{stored.id}"
        else:
            stored = client.upload_dataset(
                path,
                name=name or path.stem,
                task=task,
                input_column=input_column,
                target_column=target_column,
                weight_column=weight_column,
                skip_broken=skip_broken,
            )
            source = f"dataset:{stored.id}"
            if task is None:
                err.print(f"read for {stored.task}: {_columns(stored)}", markup=False)
            if name not in (None, stored.name):
                err.print(f"it was here before, as {stored.name!r}", markup=False)
    if as_json:
        typer.echo(stored.model_dump_json(indent=2))
    else:
        out.print(source)
        for warning in stored.model_dump().get("warnings", []):
            err.print(f"warning: {warning['message']}", markup=False)
        err.print("name it so in a spec, as the source")


def _columns(dataset: Dataset) -> str:
    return ", ".join(f"{column['kind']} {name!r}" for name, column in dataset.columns.items())


def datasets(
    dataset_id: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="The id of an upload, to see what it holds.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List datasets, built-in ones first; or show one that was uploaded."""
    if dataset_id is not None:
        with Client() as client:
            dataset = client.dataset(dataset_id.removeprefix("dataset:"))
        print_json(dataset) if as_json else print_dataset(dataset)
        return
    with Client() as client:
        builtin, uploaded = client.builtin_datasets(), [item.model_dump(mode="json") for item in client.datasets()]
    if as_json:
        typer.echo(json.dumps({"builtin": builtin, "uploaded": uploaded}, indent=2))
        return
    rows = [{**item, **item.get("info", {})} for item in builtin]
    rows += [{**item, "source": f"dataset:{item['id']}"} for item in uploaded]
    _print_table(("source", "name", "task", "splits"), rows)


def models(*, as_json: AsJson = False) -> None:
    """List stored networks, those of finished jobs included, with who uses them."""
    with Client() as client:
        stored = [item.model_dump(mode="json") for item in client.models()]
    if as_json:
        typer.echo(json.dumps(stored, indent=2))
        return
    rows = [
        {
            **item,
            "parameters": None if item["parameters"] is None else f"{item['parameters']:,}",
            "size": None if item["bytes"] is None else size_text(item["bytes"]),
            "source": f"model:{item['id']}",
            "made_by": item["job_id"] and f"{item['job_id']} ({item['part']})",
            "jobs": item["used_by"]["count"],
        }
        for item in stored
    ]
    _print_table(("source", "handle", "name", "task", "parameters", "size", "dtype", "base", "licence", "made_by", "jobs"), rows)


def name(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")],
    handle: Annotated[str | None, typer.Argument(metavar="NAME", help="Small letters, digits, '.', '_' and '-'.")] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take its name away.")] = False,
) -> None:
    """Name a model, so that specs can say model:NAME."""
    if (handle is None) != remove:
        raise typer.BadParameter("give a NAME, or --remove")
    with Client() as client:
        named = client.edit_model(model_id, handle=handle)
    out.print(f"model:{named.handle or named.id}")


def catalogue(
    what: Annotated[Literal["methods", "architectures", "augmentations"], typer.Argument(help="What to list.")],
    name: Annotated[str | None, typer.Argument(help="One of them, with its parameters.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the methods, architectures or augmentations that a spec may name; or show one, with its parameters."""
    with Client() as client:
        items = {"methods": client.methods, "architectures": client.architectures, "augmentations": client.augmentations}[what]()
    if name is not None:
        items = [item for item in items if item["name"] == name]
        if not items:
            raise CommandFailed(f"there is no {name!r}; list them with: stillhouse catalogue {what}")
    if name is not None and not as_json:
        print_fields({key: cell(value) for key, value in items[0].items() if key != "parameters"})
        out.print()
        print_rows([_parameter(*each) for each in items[0]["parameters"]["properties"].items() if each[0] != "name"], wide=["is"])
    elif as_json:
        typer.echo(json.dumps(items, indent=2))
    else:
        _print_table(("name", "summary", "tasks", "modalities", "paper"), items)


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, str]:
    """A row for a parameter of a JSON Schema."""
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    allowed = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    allowed += [" | ".join(map(str, schema["enum"]))] if "enum" in schema else []
    default = "needed" if "default" not in schema else json.dumps(schema["default"])
    return {"parameter": name, "default": default, "allowed": ", ".join(allowed), "is": schema.get("description", "")}


_WIDE = {"name", "splits", "summary", "tasks", "modalities", "paper", "base", "made_by"}
"""Columns whose texts may be broken into lines."""


def _print_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Prints the columns that any row has a value in."""
    shown = [column for column in columns if any(row.get(column) for row in rows)]
    print_rows([{column: row.get(column) for column in shown} for row in rows], wide=[name for name in shown if name in _WIDE])
