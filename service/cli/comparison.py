"""Commands that put jobs side by side."""

import json
from typing import Annotated, Any

import typer

from service.cli.application import AsJson, JobId
from service.cli.failure import CommandFailed
from service.cli.finding import find_job
from service.cli.report_card import gain_text, size_text, test_score
from service.cli.tables import print_rows
from service.cli.terminal import err, out
from service.client import Client, Job
from service.spec.differences import differing_fields, value_text

JobIds = Annotated[
    list[str],
    typer.Argument(metavar="JOB…", help="Ids, the beginnings of some, or names.", callback=lambda ids: [*map(find_job, ids)]),
]


def register(app: typer.Typer) -> None:
    """Adds the commands, in the order of the help page."""
    for command in (compare, diff):
        app.command(rich_help_panel="Jobs")(command)


def compare(job_ids: JobIds, *, as_json: AsJson = False) -> None:
    """Compare jobs: their students' figures, best test score first, and the fields in which their specs differ."""
    with Client() as client:
        jobs = [client.job(job_id) for job_id in dict.fromkeys(job_ids)]
        reports = {job.id: client.report(job.id) for job in jobs if job.status == "succeeded"}
    if len(jobs) < 2:
        raise CommandFailed("name two jobs or more")
    jobs.sort(key=lambda job: _score(reports.get(job.id)), reverse=True)
    differences = differing_fields([job.spec for job in jobs])
    if as_json:
        figures = {job.id: {"status": job.status, "result": job.result} for job in jobs}
        typer.echo(json.dumps({"jobs": figures, "differing_fields": differences}, indent=2))
        return
    print_rows([_figures(job, reports.get(job.id) or {}) for job in jobs], wide=["name"])
    _print_differences(jobs, differences)


def diff(job_id: JobId, other: JobId, *, as_json: AsJson = False) -> None:
    """Show the fields in which the specs of two jobs differ."""
    with Client() as client:
        jobs = [client.job(job_id), client.job(other)]
    differences = differing_fields([job.spec for job in jobs])
    if as_json:
        typer.echo(json.dumps(differences, indent=2))
    else:
        _print_differences(jobs, differences)


def _figures(job: Job, report: dict[str, Any]) -> dict[str, object]:
    student = report.get("student") or {}
    latency_ms = (student.get("latency_ms") or {}).get("batch_1")
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "test": test_score(report, "student"),
        "teacher's": test_score(report, "teacher"),
        "gain": gain_text(report),
        "parameters": "" if student.get("parameters") is None else f"{student['parameters']:,}",
        "size": size_text(student.get("bytes")),
        "latency": "" if latency_ms is None else f"{latency_ms:.2f} ms",
    }


def _print_differences(jobs: list[Job], differences: dict[str, list[Any]]) -> None:
    if not differences:
        err.print("their specs are the same")
        return
    out.print("\nwhat differs in their specs", style="bold")
    texts = {pointer: [value_text(value) for value in values] for pointer, values in differences.items()}
    rows = [{"field": pointer} | dict(zip((job.id for job in jobs), values, strict=True)) for pointer, values in texts.items()]
    print_rows(rows, wide=[job.id for job in jobs])


def _score(report: dict[str, Any] | None) -> float:
    score = ((report or {}).get("student") or {}).get("test_score")
    return float("-inf") if score is None else score
