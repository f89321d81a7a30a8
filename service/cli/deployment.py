"""Commands of a deployment: the API, a worker, migrations, the first key. They read ``service.settings``."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Literal

import typer

from service.cli.failure import SERVICE_AWAY, USAGE, CommandFailed, missing_extra
from service.cli.terminal import err
from service.imports import not_collected


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
    app.command(name="adopt-store", rich_help_panel="Deployment")(adopt_store)


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8321,
    listener: Annotated[int | None, typer.Option(hidden=True, help="A socket that listens already, by its number.")] = None,
) -> None:
    """Run one process of the API; any number may run side by side."""
    try:
        with not_collected():
            from service.api import server
    except ModuleNotFoundError as error:
        raise missing_extra(error, "service") from error
    try:
        server.serve(host, port, listener=listener)
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
    with _database_errors_in_words():
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
    with _database_errors_in_words(), closing(Database(_database_url(), pool_size=1)) as database:
        _, secret = database.run(lambda session: create_key(session, user_name=user, role=role, name=name))
    typer.echo(secret)


def adopt_store(
    *,
    although_files_are_missing: Annotated[
        bool, typer.Option("--although-files-are-missing", help="Take it without the files of the jobs that there are.")
    ] = False,
) -> None:
    """Make the store at STILLHOUSE_STORE the one of this service: a restored copy without its marker, or a new one."""
    try:
        from service.database import Database
        from service.errors import Conflict
        from service.settings import settings
        from service.store_identity import adopt
    except ModuleNotFoundError as error:
        raise missing_extra(error, "service") from error
    url = settings().store
    if not url:
        raise CommandFailed("set STILLHOUSE_STORE, for instance file:///srv/stillhouse or s3://bucket/prefix")
    with _database_errors_in_words(), closing(Database(_database_url(), pool_size=1)) as database:
        try:
            store_id = adopt(database, url, although_files_are_missing=although_files_are_missing)
        except Conflict as error:
            raise CommandFailed(f"{error.detail}; --although-files-are-missing takes it all the same") from error
    err.print(f"{url} is the store of this service, {store_id}")


@contextmanager
def _database_errors_in_words() -> Iterator[None]:
    """Says what the database, its driver or Alembic says in one sentence: who runs these commands can set it right."""
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    from service.part_errors import Meaning, meaning_of

    try:
        yield
    except CommandError as error:
        raise CommandFailed(f"the database was migrated by another version of Stillhouse: {error}") from error
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = str(cause).strip().partition("\n")[0]
        if getattr(cause, "sqlstate", None) in {"42P01", "42703"}:  # a table, a column that is not there
            raise CommandFailed(f"the database is not at this version's schema: run stillhouse migrate ({said})") from error
        is_away = meaning_of(error) in {Meaning.AWAY, Meaning.RETRY}
        raise CommandFailed(f"the database: {said}", exit_code=SERVICE_AWAY if is_away else USAGE) from error
    except ValueError as error:  # the address
        raise CommandFailed(str(error)) from error


def _database_url(*, direct: bool = False) -> str:
    from service.settings import settings

    url = settings().direct_database_url if direct else settings().database_url
    if not url:
        raise CommandFailed("set DATABASE_URL, for instance postgresql://user:password@host:5432/stillhouse")
    return url
