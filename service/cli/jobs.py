"""Commands on jobs: submit, show, stop, download."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from service.cli.application import AsJson, JobId, SpecFile
from service.cli.failure import INTERRUPTED, JOB_FAILED, CommandFailed, refuse_unaccepted
from service.cli.finding import find_job
from service.cli.following import failure_text, follow
from service.cli.progress import ProgressView
from service.cli.queue import asked_text, print_job, starts
from service.cli.report_card import gain_text, report_card, test_score
from service.cli.specs import open_spec
from service.cli.tables import ago, print_fields, print_json, print_rows
from service.cli.terminal import err, out
from service.client import Artifact, Client, Job
from service.client.resources import JobWarning
from service.spec import parse_spec
from service.spec.effect import spec_warnings
from service.spec.warning_message import WarningMessage


def register(app: typer.Typer) -> None:
    """Adds the commands, in the order of the help page."""
    for command in (
        submit,
        validate,
        show_all,
        show,
        watch,
        cancel,
        pause,
        resume,
        logs,
        metrics,
        events,
        download,
        report,
        delete,
    ):
        app.command(name="ls" if command is show_all else None, rich_help_panel="Jobs")(command)


def submit(
    spec: SpecFile,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show its progress until it has ended.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again returns the first job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Queue a job."""
    with open_spec(spec, as_json=as_json) as document, Client() as client:
        job = client.submit(document, idempotency_key=idempotency_key)
        if watch:
            _print_warnings(job.warnings)
            err.print(f"{job.id} queued at {client.url}")
            _watch(client, job.id, as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            _print_warnings(job.warnings)
            out.print(f"{job.id}  {job.status}")
            err.print(f"follow it with: stillhouse watch {job.id}")


def validate(
    spec: SpecFile,
    *,
    offline: Annotated[
        bool, typer.Option(help="Check the spec alone, without a service: neither the data nor what the key permits.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a spec without queueing anything; with --json print it with every default."""
    complete: dict[str, Any]
    with open_spec(spec, as_json=as_json) as document:
        if offline:
            parsed = parse_spec(document)
            complete = parsed.model_dump(mode="json")
            _print_warnings(spec_warnings(parsed))
        else:
            with Client() as client:
                checked = client.check(document)
            complete = checked.spec
            _print_warnings(checked.warnings)
    if as_json:
        typer.echo(json.dumps(complete, indent=2))
    else:
        out.print(f"{spec} is valid" + (" in its form" if offline else ""))


def _print_warnings(warnings: Sequence[JobWarning | WarningMessage]) -> None:
    for warning in warnings:
        err.print("warning: ", style="yellow", end="")
        err.print(warning.message, markup=False)


def show_all(
    *,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this user's jobs.")] = None,
    label: Annotated[str | None, typer.Option(help="Only jobs with this label, name:value.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with Client() as client:
        jobs = list(itertools.islice(client.jobs(status=status, owner=owner, label=label), limit))
    if as_json:
        print_json(jobs)
        return
    rows = [
        {
            "id": job.id,
            "name": job.name,
            "owner": job.owner,
            "status": job.status,
            "progress": _how_far(job),
            "test": test_score(job.result, "student"),
            "gain": gain_text(job.result),
            "created": ago(job.created_at),
        }
        for job in jobs
    ]
    print_rows(rows, wide=["name"])


def show(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Show one job, with its report card if it has succeeded."""
    with Client() as client:
        job = client.job(job_id)
        if as_json:
            print_json(job)
            return
        waiting = None if job.terminal or job.status == "running" else client.explain(job_id)
        rows = {
            "id": job.id,
            "name": job.name,
            "owner": job.owner,
            "status": _status(job),
            "progress": _how_far(job),
            "queue": f"number {waiting.position}" if waiting is not None and waiting.position else None,
            "waits for": waiting.waiting_for if waiting is not None else None,
            "starts": starts(waiting.expected_start) if waiting is not None else None,
            "reads": f"stillhouse preview {job.id}" if (job.estimate or {}).get("preview_id") else None,
            "memory": None if (needed := (job.estimate or {}).get("memory_gib")) is None else _memory(needed),
            "notes": "\n".join((job.estimate or {}).get("notes", [])),
            "warnings": "\n".join(warning.message for warning in job.warnings),
            "attempt": f"{job.attempt} of {job.max_attempts}" if job.attempt else None,
            "worker": job.worker,
            "labels": ", ".join(f"{name}: {value}" for name, value in job.labels.items()),
            "created": ago(job.created_at),
            "error": failure_text(job) if job.error is not None else None,
        }
        print_fields(rows)
        if job.status == "succeeded":
            out.print(report_card(client.report(job_id)))


def watch(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Show a job's progress until it has ended; exit code 1 unless it succeeded, 4 if its student is not accepted."""
    with Client() as client:
        _watch(client, job_id, as_json=as_json)


def cancel(
    job_id: JobId,
    *,
    keep: Annotated[
        Literal["best", "last", "none"], typer.Option(help="Which checkpoint of a running job is kept as a usable student.")
    ] = "last",
    as_json: AsJson = False,
) -> None:
    """Stop a job for good."""
    with Client() as client:
        print_job(client.cancel(job_id, keep=keep), as_json=as_json)


def pause(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Stop a job at a checkpoint, to be resumed."""
    with Client() as client:
        print_job(client.pause(job_id), as_json=as_json)


def resume(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Queue a paused job again."""
    with Client() as client:
        print_job(client.resume(job_id), as_json=as_json)


def logs(
    job_id: JobId,
    *,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Continue with what is yet to come.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only the last lines.")] = None,
) -> None:
    """Print the log of a job."""
    with Client() as client:
        for text in client.logs(job_id, tail=tail, follow=following):
            typer.echo(text, nl=False)


def metrics(
    job_id: JobId,
    *,
    name: Annotated[list[str] | None, typer.Option(help="Only this metric; may be repeated.")] = None,
    max_points: Annotated[int, typer.Option(min=2, help="Points of each metric.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print a row for each metric, with its first and last value."""
    with Client() as client:
        series = client.metrics(job_id, names=name, max_points=max_points)
    if as_json:
        typer.echo(json.dumps(series))
        return
    rows = [
        {"metric": name, "first": f"{points[0][1]:.4g}", "last": f"{points[-1][1]:.4g}", "at step": points[-1][0]}
        for name, points in series.items()
        if points
    ]
    print_rows(rows)


def events(
    job_id: JobId,
    *,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Continue with what is yet to come.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print the events of a job."""
    with Client() as client:
        for event in client.events(job_id) if following else client.events_until_now(job_id):
            at = f"{event.created_at:%H:%M:%S}  " if event.created_at is not None else ""
            typer.echo(event.model_dump_json() if as_json else f"{at}{event.type:<16}{event.message or ''}")


def download(
    job_id: JobId,
    names: Annotated[list[str] | None, typer.Argument(help="Artifacts, or folders such as student; all by default.")] = None,
    *,
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="The folder; by default one named as the job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a job's artifacts, each checked against its SHA-256."""
    target = folder or Path(job_id)
    with Client() as client:
        _require_end(client, job_id)
        paths = download_with_bars(client, job_id, target, names=names)
        if not paths:
            raise CommandFailed(f"{job_id} has left no files: it is {_status(client.job(job_id))}", exit_code=JOB_FAILED)
    if as_json:
        typer.echo(json.dumps([str(path) for path in paths]))
    else:
        out.print(f"{len(paths)} files in {target}")


def report(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Print a finished job's report card."""
    with Client() as client:
        _require_end(client, job_id)
        card = client.report(job_id)
    if as_json:
        typer.echo(json.dumps(card, indent=2))
    else:
        out.print(report_card(card))


def delete(
    what: Annotated[
        str, typer.Argument(metavar="JOB|DATASET|MODEL", help="A job, by its id or name; or dataset:ID, or model:ID.")
    ],
) -> None:
    """Delete a finished job and its artifacts; or an uploaded dataset or model that no live job uses."""
    kind, _, named = what.rpartition(":")
    with Client() as client:
        if kind == "dataset" or what.startswith("ds_"):
            client.delete_dataset(named)
        elif kind == "model" or what.startswith("model_"):
            found = [model.id for model in client.models() if named in (model.id, model.handle)]
            client.delete_model(found[0] if found else named)
        else:
            client.delete(find_job(what))


def download_with_bars(client: Client, job_id: str, folder: Path, *, names: Sequence[str] | None) -> list[Path]:
    """Downloads artifacts, with a progress bar for each file in a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def on_bytes(artifact: Artifact, num_bytes: int) -> None:
            if artifact.name not in tasks:
                tasks[artifact.name] = bars.add_task(artifact.name, total=artifact.size)
            bars.update(tasks[artifact.name], completed=num_bytes)

        return client.download(job_id, folder, names=names, on_bytes=on_bytes)


def _watch(client: Client, job_id: str, *, as_json: bool) -> None:
    try:
        with ProgressView(err) as view:
            job = follow(client, job_id, view)
    except KeyboardInterrupt:
        err.print(f"{job_id} goes on; follow it again with: stillhouse watch {job_id}")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(job)
    elif job.status == "succeeded":
        out.print(report_card(client.report(job_id)))
        err.print(f"fetch the student with: stillhouse download {job_id} student")
    if job.status != "succeeded":
        err.print(failure_text(job), markup=False, style="red")
        raise typer.Exit(JOB_FAILED)
    refuse_unaccepted(job.result)


def _require_end(client: Client, job_id: str) -> None:
    """Raises CommandFailed for a job that has nothing to show yet."""
    job = client.job(job_id)
    if not job.terminal:
        raise CommandFailed(f"{job.id} has not ended: it is {_status(job)}; nothing is there before", exit_code=JOB_FAILED)


def _how_far(job: Job) -> str:
    if job.progress is None or job.status not in {"running", "paused"}:
        return ""
    done = "" if job.progress.fraction is None else f" {job.progress.fraction:.0%}"
    return f"{job.progress.phase}{done}"


def _status(job: Job) -> str:
    reason = f" ({job.status_reason})" if job.status_reason and job.status_reason != job.status else ""
    return f"{job.status}{reason}{asked_text(job)}"


def _memory(gib: float) -> str:
    return f"about {gib:.1f} GiB" if gib >= 0.1 else "less than 0.1 GiB"
