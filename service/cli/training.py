"""``stillhouse train``: a spec on this machine, without a service; and ``stillhouse preview``: what its networks read."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.application import AsJson, SpecFile
from service.cli.failure import INTERRUPTED, JOB_FAILED, CommandFailed, missing_extra, refuse_unaccepted
from service.cli.finding import find_job
from service.cli.preview_card import show_preview
from service.cli.progress import ProgressView, show_event
from service.cli.report_card import report_card
from service.cli.specs import open_spec
from service.cli.student import how_to_load
from service.cli.tables import print_json
from service.cli.terminal import err, out
from service.client import Client
from service.settings import Settings
from service.spec import JobSpec, parse_spec
from service.spec.preview import MOST_SAMPLES, USUAL_SAMPLES, Preview
from service.spec.report import Report

if TYPE_CHECKING:
    from worker.protocol import Failed
    from worker.sources.cache import NetworkCache


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel="On this machine")(train)
    app.command(rich_help_panel="Jobs")(preview)


def train(
    spec: SpecFile,
    *,
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder for the student, the report and the log.")],
    teacher_cache: Annotated[
        Path | None, typer.Option(help="A folder that caches the teachers' outputs for later trainings.")
    ] = None,
) -> None:
    """Train a student on this machine, without a service. Ctrl-C stops it at a checkpoint, the same command resumes it."""
    with open_spec(spec) as document:
        job = parse_spec(document)
    with ProgressView(err) as view:
        view.status("loading torch and transformers")
        try:
            from worker.host.openmp import let_idle_threads_sleep

            let_idle_threads_sleep()
            from worker import standalone  # needs libraries that the other commands do without
        except ModuleNotFoundError as error:
            raise missing_extra(error, "worker") from error
        try:
            last = standalone.train(
                job,
                folder,
                on_event=lambda event: show_event(view, event),
                cache=teacher_cache,
                networks=_network_cache(),
                data=_data_cache(),
            )
        except ModuleNotFoundError as error:
            raise missing_extra(error, "worker") from error
        except standalone.FolderInUse as error:
            raise CommandFailed(str(error)) from error
        except standalone.TrainingFailed as error:
            raise _failed(error.failed) from error
    if last.type == "stopped":
        kept = f" --teacher-cache {shlex.quote(str(teacher_cache))}" if teacher_cache else ""
        again = f"stillhouse train {shlex.quote(spec)} --out {shlex.quote(str(folder))}{kept}"
        err.print(f"stopped at a checkpoint; go on with: {again}")
        raise typer.Exit(INTERRUPTED)
    card = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    out.print(report_card(card))
    print_student(folder / "student")
    refuse_unaccepted(Report.model_validate(card).headline())


def preview(
    spec: Annotated[str, typer.Argument(metavar="SPEC|JOB", help="A YAML or JSON file; - reads standard input. Or a job.")],
    *,
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=1, max=MOST_SAMPLES, help="How many, of the training split.")
    ] = USUAL_SAMPLES,
    offline: Annotated[bool, typer.Option(help="Read them on this machine, without a service.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show some samples as each network of a spec reads them: tokens and which count, images, sound. Nothing is trained.

    A worker of the service reads them, or with --offline this machine; nothing is left behind. Of a job its check has read some.
    """
    if spec != "-" and not Path(spec).exists() and not offline:
        with Client() as client:
            _show(client.preview_of_job(find_job(spec)), as_json=as_json)
        return
    with open_spec(spec, as_json=as_json) as document:
        if offline:
            found = _preview_here(parse_spec(document), samples)
        else:
            with Client() as client, err.status("a worker reads the data"):
                found = client.preview(document, samples=samples)
    _show(found, as_json=as_json)


def _show(found: Preview, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        show_preview(found)


def _preview_here(job: JobSpec, samples: int) -> Preview:
    with ProgressView(err) as view:
        view.status("loading torch and transformers")
        try:
            from worker import standalone  # needs libraries that the other commands do without

            return standalone.preview(
                job,
                samples,
                on_event=lambda event: show_event(view, event),
                networks=_network_cache(),
                data=_data_cache(),
            )
        except ModuleNotFoundError as error:
            raise missing_extra(error, "worker") from error
        except standalone.TrainingFailed as error:
            raise _failed(error.failed) from error


def _failed(failed: "Failed") -> CommandFailed:
    hint = f"\n  {failed.hint}" if failed.hint else ""
    place = f" at {pointer}" if (pointer := failed.details.get("pointer")) else ""
    return CommandFailed(f"{failed.code}{place}: {failed.message}{hint}", exit_code=JOB_FAILED)


def _network_cache() -> "NetworkCache | None":
    """Where a worker of this machine would keep networks, if that is set."""
    own = Settings()
    return _cache(own.network_cache_folder, own.network_cache_bytes)


def _data_cache() -> "NetworkCache | None":
    """Where a worker of this machine would keep data, if that is set."""
    own = Settings()
    return _cache(own.data_cache_folder, own.data_cache_bytes)


def _cache(folder: Path | None, max_bytes: int) -> "NetworkCache | None":
    from worker.sources.cache import NetworkCache

    return None if folder is None else NetworkCache(folder, max_bytes=max_bytes)


def print_student(student: Path) -> None:
    """Prints where the student is and how to load it."""
    out.print(f"\nThe student is in [bold]{student}[/bold]. Load it with:\n")
    out.print(how_to_load(student), markup=False)
