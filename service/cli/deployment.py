"""Commands of a deployment: the API, a worker, migrations, the first key. They read ``service.settings``."""

import os
import sys
from typing import Annotated, Literal

import typer

from service.cli.failure import CommandFailed, missing_extra
from service.cli.terminal import err


def register(app: typer.Typer) -> None:
    """Adds the commands, in the order of the help page."""
    app.command(rich_help_panel="Deployment")(serve)
    app.command(
        rich_help_panel="Deployment",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(worker)
    app.command(rich_help_panel="Deployment")(migrate)
    app.command(name="admin-key", rich_help_panel="Deployment")(admin_key)


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8321,
) -> None:
    """Run one process of the API; any number may run side by side."""
    try:
        from service.api import server
    except ModuleNotFoundError as error:
        raise missing_extra(error, "service") from error
    try:
        server.serve(host, port)
    except ValueError as error:  # a setting that is missing
        raise CommandFailed(str(error)) from error


def worker(context: typer.Context) -> None:
    """Run a worker; its own options follow (--help shows them)."""
    # exec rather than import: the trainers' fork server imports the main module again, which must be that of the worker.
    os.execv(sys.executable, [sys.executable, "-m", "worker", *context.args])  # noqa: S606


def migrate() -> None:
    """Migrate the database to this version's schema; may be repeated."""
    try:
        from service.database import upgrade
    except ModuleNotFoundError as error:
        raise missing_extra(error, "service") from error
    upgrade(_database_url(direct=True))
    err.print("the database is up to date")


def admin_key(
    *,
    user: Annotated[str, typer.Option(help="The user of the key; a new name creates a user.")] = "admin",
    role: Annotated[Literal["viewer", "member", "admin"], typer.Option(help="What the key permits.")] = "admin",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Create a key directly in the database and print it, this once: the first key of a new deployment."""
    try:
        from service.database import Database
        from service.security import create_key
    except ModuleNotFoundError as error:
        raise missing_extra(error, "service") from error
    database = Database(_database_url(), pool_size=1)
    try:
        with database.transaction() as session:
            _, secret = create_key(session, user_name=user, role=role, name=name)
    finally:
        database.close()
    typer.echo(secret)


def _database_url(*, direct: bool = False) -> str:
    from service.settings import settings

    url = settings().direct_database_url if direct else settings().database_url
    if not url:
        raise CommandFailed("set DATABASE_URL, for instance postgresql://user:password@host:5432/stillhouse")
    return url
