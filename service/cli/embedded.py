"""The commands that start their own servers: ``stillhouse up`` and ``stillhouse demo``."""

import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.application import SpecFile
from service.cli.failure import INTERRUPTED, JOB_FAILED, CommandFailed, missing_extra
from service.cli.following import failure_text, follow
from service.cli.interrupts import Interrupts
from service.cli.jobs import download_with_bars
from service.cli.progress import ProgressView
from service.cli.report_card import report_card
from service.cli.specs import open_spec
from service.cli.terminal import err, out
from service.cli.training import print_student
from service.client import Client, ClientError
from service.connection import CONNECTION_FILE, ClientSettings, Connection
from service.spec import parse_spec

if TYPE_CHECKING:
    from service.embedded.stack import Stack

_LOOK_SECONDS = 0.2
Devices = Annotated[str | None, typer.Option(help="What the worker may use, as `stillhouse worker --devices` takes it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel="On this machine")(up)
    app.command(rich_help_panel="On this machine")(demo)


def up(
    *,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept; STILLHOUSE_HOME or ~/.stillhouse by default.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="By default 8321, or a free one.")] = None,
    devices: Devices = None,
) -> None:
    """Run the whole service on this machine, with servers of its own, until Ctrl-C."""
    folder = data_dir or ClientSettings().home
    with Interrupts() as interrupts:
        try:
            with _stack(folder, port=port, devices=devices, interrupts=interrupts) as running:
                out.print(f"\nStillhouse is ready at [bold]{running.connection.url}[/bold]")
                out.print(f"  key   in {running.folder / CONNECTION_FILE}; the stillhouse command finds it there")
                out.print(f"  logs  in {running.folder / 'logs'}")
                out.print(f"  curl  export {_variables(running.connection)}", markup=False)
                if data_dir is not None:
                    out.print(f"  for other terminals: export STILLHOUSE_HOME={running.folder}")
                out.print("  jobs  start once the worker has loaded torch, some seconds from now")
                out.print("  Ctrl-C stops it; jobs and results stay\n")
                threading.Event().wait()
        except KeyboardInterrupt:
            out.print("stopped")


def demo(
    spec: SpecFile,
    *,
    results: Annotated[Path, typer.Option("--out", "-o", help="Where the student goes, in a folder named as the job.")] = Path(
        "runs"
    ),
    devices: Devices = None,
) -> None:
    """Start everything, train one student over HTTP, show what came of it, stop everything."""
    with open_spec(spec) as document:
        parse_spec(document)  # what is wrong with it is told before any server starts
    results.mkdir(parents=True, exist_ok=True)
    with Interrupts() as interrupts:
        try:
            with _stack(results / ".stack", port=None, devices=devices, interrupts=interrupts) as running:
                student = _train_one(running.connection, document, results)
        except KeyboardInterrupt:
            err.print("stopped")
            raise typer.Exit(INTERRUPTED) from None
    print_student(student)


def _variables(connection: Connection) -> str:
    """The environment variables with which any program reaches the service, for a shell."""
    return f"STILLHOUSE_URL={shlex.quote(connection.url)} STILLHOUSE_API_KEY={shlex.quote(connection.api_key)}"


def _train_one(connection: Connection, document: dict[str, object], results: Path) -> Path:
    with Client(connection.url, connection.api_key) as client:
        for leftover in client.jobs():
            if not leftover.terminal:  # of a demo that was killed
                client.cancel(leftover.id, keep="none")
        # Without one nobody knows what this machine has, and a job for more would wait for ever instead of being refused.
        while not any(worker.alive for worker in client.workers()):
            time.sleep(_LOOK_SECONDS)
        job = client.submit(document)
        err.print(f"· submitted: POST {client.url}/v1/jobs answered {job.id}\n")
        try:
            with ProgressView(err) as view:
                job = follow(client, job.id, view)
        except KeyboardInterrupt:
            with suppress(ClientError), Client(connection.url, connection.api_key, timeout_seconds=5.0, max_retries=0) as hasty:
                hasty.cancel(job.id, keep="none")
            raise
        if job.status != "succeeded":
            raise CommandFailed(failure_text(job), exit_code=JOB_FAILED)
        download_with_bars(client, job.id, results / job.id, names=None)
        out.print()
        out.print(report_card(client.report(job.id)))
    return results / job.id / "student"


@contextmanager
def _stack(folder: Path, *, port: int | None, devices: str | None, interrupts: Interrupts) -> Iterator["Stack"]:
    """Runs the embedded stack; its errors become CommandFailed."""
    try:
        from service.embedded.processes import ChildDied
        from service.embedded.servers import FolderInUse
        from service.embedded.stack import AnotherVersion, PortTaken, stack
    except ModuleNotFoundError as error:
        raise missing_extra(error, "embedded") from error
    interrupts.arm()
    try:
        with (
            stack(
                folder,
                port=port,
                devices=devices,
                say=lambda text: err.print(f"· {text}", markup=False),
                hurried=interrupts.hurried,
            ) as running,
            running.interrupting_on_failure(),
        ):
            try:
                yield running
            except KeyboardInterrupt:
                running.check()
                raise
            finally:
                interrupts.disarm()
    except (ChildDied, FolderInUse, PortTaken, AnotherVersion) as error:
        raise CommandFailed(str(error), exit_code=JOB_FAILED) from error
