"""Commands on the users of the queue: usage, weights and limits, keys."""

import re
import sys
from datetime import datetime, timedelta
from typing import Annotated, Literal

import typer

from service.cli.application import AsJson
from service.cli.failure import CommandFailed
from service.cli.tables import duration, print_json, print_rows
from service.cli.terminal import err
from service.client import Client, User

users = typer.Typer(no_args_is_help=True, help="Users, their weights and limits; for admins.")
keys = typer.Typer(no_args_is_help=True, help="API keys; for admins.")
hub_token = typer.Typer(no_args_is_help=True, help="Your token for the Hugging Face Hub, which your jobs fetch networks by.")

Limit = Annotated[str | None, typer.Option(metavar="N|none", help="Jobs at once; none lifts the limit, 0 allows none.")]


def register(app: typer.Typer) -> None:
    """Adds the commands, in the order of the help page."""
    app.command(rich_help_panel="Queue")(usage)
    app.add_typer(hub_token, name="hub-token", rich_help_panel="Datasets and models")
    app.add_typer(users, name="users", rich_help_panel="Administration")
    app.add_typer(keys, name="keys", rich_help_panel="Administration")


def usage(
    *,
    since: Annotated[str | None, typer.Option(metavar="24h|7d|DATE", help="All time by default; counts whole hours.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the usage of every user, and their share of the total."""
    start = None if since is None else since_when(since)
    with Client() as client:
        found = client.usage(since=start)
    if as_json:
        print_json(found)
        return
    rows = [
        {
            "user": line.user,
            "GPU time": duration(line.gpu_seconds),
            "CPU slot time": duration(line.cpu_slot_seconds),
            "jobs": line.jobs,
            "share": f"{line.share:.1%}",
            "fair share": f"{line.fair_share:.1%}",
            "weight": f"{line.weight:g}",
        }
        for line in found
    ]
    print_rows(rows)


@users.command("ls")
def list_users(*, as_json: AsJson = False) -> None:
    """List users with their weights and limits."""
    with Client() as client:
        found = client.users()
    if as_json:
        print_json(found)
    else:
        print_rows([_row(user) for user in found])


@users.command("add")
def add_user(name: Annotated[str, typer.Argument(help="Unique.")], *, as_json: AsJson = False) -> None:
    """Add a user; creating a key for a new name does that too."""
    with Client() as client:
        user = client.create_user(name)
    if as_json:
        print_json(user)
    else:
        print_rows([_row(user)])


@users.command("set")
def set_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's name or id.")],
    *,
    share_weight: Annotated[float | None, typer.Option(help="The weight in the fair share, relative to the others'.")] = None,
    max_running: Limit = None,
    max_queued: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Change a user's weight and limits."""
    if share_weight is None and max_running is None and max_queued is None:
        raise CommandFailed("nothing to change: give --share-weight, --max-running or --max-queued")
    with Client() as client:
        changed = client.edit_user(
            user,
            share_weight=share_weight,
            max_running_jobs=... if max_running is None else _limit("--max-running", max_running),
            max_queued_jobs=... if max_queued is None else _limit("--max-queued", max_queued),
        )
    if as_json:
        print_json(changed)
    else:
        print_rows([_row(changed)])


@keys.command("ls")
def list_keys(*, as_json: AsJson = False) -> None:
    """List keys; the keys themselves are not stored."""
    with Client() as client:
        stored = list(client.keys())
    if as_json:
        print_json(stored)
        return
    columns = ("id", "user", "role", "name", "created_at", "revoked_at")
    print_rows([{column: getattr(key, column) for column in columns} for key in stored])


@keys.command("create")
def create_key(
    *,
    user: Annotated[str | None, typer.Option(help="The user of the key.")] = None,
    new_user: Annotated[str | None, typer.Option(help="The name of a user that is made for it.")] = None,
    role: Annotated[Literal["viewer", "member", "admin"], typer.Option(help="What the key permits.")] = "member",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once."""
    if (user is None) == (new_user is None):
        raise CommandFailed("whose key is it? Give --user NAME, or --new-user NAME for one that is not there yet")
    with Client() as client:
        known = [each.name for each in client.users()]
        if user is not None and user not in known:
            raise CommandFailed(f"there is no user {user!r}, but {', '.join(known)}; to make one: --new-user {user}")
        if new_user in known:
            raise CommandFailed(f"there is a user {new_user!r}; for another key of theirs: --user {new_user}")
        made = client.create_key(user=user or new_user or "", role=role, name=name)
    if as_json:
        print_json(made)
    else:
        typer.echo(made.key)
        err.print(f"{made.id}: it cannot be shown again")


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_…")]) -> None:
    """Revoke a key."""
    with Client() as client:
        client.revoke_key(key_id)


@hub_token.command("set")
def set_hub_token() -> None:
    """Keep a token, encrypted; it is asked for, or read from standard input."""
    # Not an argument, which a shell's history keeps and every user of this machine may read.
    token = typer.prompt("Token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    with Client() as client:
        client.set_hub_token(token.strip())


@hub_token.command("remove")
def remove_hub_token() -> None:
    """Forget the token."""
    with Client() as client:
        client.remove_hub_token()


def since_when(text: str) -> datetime:
    """Parses ``24h``, ``7d`` or a date; without a time zone a date is in local time. Raises CommandFailed."""
    if past := re.fullmatch(r"(\d{1,5})([hd])", text):
        count = int(past[1])
        return datetime.now().astimezone() - (timedelta(hours=count) if past[2] == "h" else timedelta(days=count))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"--since {text!r} is no time; write 24h, 7d or a date such as 2026-11-02") from None
    return moment if moment.tzinfo is not None else moment.astimezone()


def _limit(option: str, text: str) -> int | None:
    if text == "none":
        return None
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise CommandFailed(f"{option} {text!r} is no limit; write a number of jobs, or none")
    return int(text)


def _row(user: User) -> dict[str, object]:
    limits = {"may run": user.max_running_jobs, "may wait": user.max_queued_jobs}
    shown = {name: "any number" if limit is None else limit for name, limit in limits.items()}
    return {"id": user.id, "name": user.name, "weight": f"{user.share_weight:g}", **shown}
