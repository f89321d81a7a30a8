"""The stack of one data directory: PostgreSQL, Valkey, API and worker.

    DATA/connection.json   address and admin key, for the clients of this machine
    DATA/secret.key        what users' tokens are encrypted with
    DATA/postgres, valkey  data of the servers
    DATA/store, scratch    artifacts and datasets; running jobs' files
    DATA/teacher-cache     outputs of teachers on datasets
    DATA/network-cache     networks that jobs began with
    DATA/logs              api.log, worker.log

One process locks a data directory at a time; its child processes end with it, and one that ends by itself is started again.
"""

import base64
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from service.connection import Connection, read_connection, write_connection
from service.embedded.keeper import Keeper
from service.embedded.processes import Child
from service.embedded.servers import Postgres, Valkey, exclusive, postgres, valkey
from service.errors import Unauthenticated

DEFAULT_PORT = 8321
_BACKLOG = 2048
_READY_SECONDS = 120.0
"""Long, because what the API imports may be on a slow disk."""
_API_STOP_SECONDS = 15.0
_WORKER_STOP_SECONDS = 90.0
"""For the drain: every trainer writes a checkpoint, every job goes back to the queue."""


class PortTaken(RuntimeError):
    """Another program listens on the requested port."""


class AnotherVersion(RuntimeError):
    """The data directory's database was migrated by another version of Stillhouse."""


@dataclass(frozen=True)
class Stack:
    """The running stack. Its processes end with the ``with`` block of :func:`stack`."""

    connection: Connection
    folder: Path
    environment: Mapping[str, str]
    """The environment of the API and the worker; a further worker needs the same."""
    postgres: Postgres
    valkey: Valkey
    api: Child
    worker: Child
    keeper: Keeper
    """Starts each of the four again that ends by itself."""

    def check(self) -> None:
        """Raises ChildDied if a process ended again and again."""
        if self.keeper.failure is not None:
            raise self.keeper.failure

    @contextmanager
    def interrupting_on_failure(self) -> Iterator[None]:
        """Sends SIGINT to the main thread if a process ends again and again; :meth:`check` then raises its error."""
        main_thread = threading.main_thread()
        self.keeper.on_failure = lambda: signal.pthread_kill(main_thread.ident or 0, signal.SIGINT)
        try:
            self.check()
            yield
        finally:
            self.keeper.on_failure = lambda: None


@contextmanager
def stack(
    folder: Path,
    *,
    port: int | None = None,
    devices: str | None = None,
    say: Callable[[str], None],
    hurried: Callable[[], bool] = lambda: False,
) -> Iterator[Stack]:
    """Starts everything and yields once the API is ready. The worker takes jobs when it has loaded torch, some seconds later.

    From then on what ends by itself is started again. ``say`` is called with each step. ``hurried()`` turning true ends a slow
    stop. The default port is 8321, or a free one.

    Raises:
        FolderInUse: another process runs the stack of this folder.
        PortTaken: the requested port is taken.
        AnotherVersion: a newer version has used this folder.
        ChildDied: a process does not start; the message contains the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    with ExitStack() as parts:
        parts.enter_context(exclusive(folder))
        keeper = parts.enter_context(Keeper(say))
        listener = parts.enter_context(listen(port))
        bound_port = listener.getsockname()[1]
        logs = folder / "logs"
        for sub in (logs, folder / "store", folder / "scratch"):
            sub.mkdir(exist_ok=True, mode=0o700)

        say("starting PostgreSQL and Valkey")
        database_server = parts.enter_context(postgres(folder / "postgres"))
        broker = parts.enter_context(valkey(folder / "valkey"))
        env = _environment(folder, database_url=database_server.url, redis_url=broker.url)
        serve = ["service.cli", "serve", "--listener", str(listener.fileno())]
        api = _child("API", serve, env=env, log=logs / "api.log", inherited=[listener.fileno()])
        worker = _child("worker", ["worker", *(["--devices", devices] if devices else [])], env=env, log=logs / "worker.log")
        parts.callback(api.stop, grace_seconds=_API_STOP_SECONDS, hurried=hurried)
        parts.callback(worker.stop, grace_seconds=_WORKER_STOP_SECONDS, hurried=hurried)
        parts.callback(say, "stopping: running jobs write a checkpoint and go back to the queue")
        say("starting the API")
        api.start()
        with _Records(database_server.url) as records:  # while the API imports, which the worker would slow down
            say("starting a worker, which loads torch and transformers")
            worker.start()
            connection = Connection(url=f"http://127.0.0.1:{bound_port}", api_key=records.admin_key(read_connection(folder)))
            write_connection(folder, connection)
            api.wait_until(lambda: _is_ready(bound_port), timeout_seconds=_READY_SECONDS)
        keeper.keep(database_server.child, database_server.launch)
        keeper.keep(broker.child, broker.launch)
        keeper.keep(api, api.start)
        keeper.keep(worker, worker.start)
        keeper.begin()
        parts.callback(keeper.leave)
        yield Stack(
            connection=connection,
            folder=folder,
            environment=env,
            postgres=database_server,
            valkey=broker,
            api=api,
            worker=worker,
            keeper=keeper,
        )


def _environment(folder: Path, *, database_url: str, redis_url: str) -> dict[str, str]:
    """What API and worker read, beside what this process was given; its own key for secrets goes before the folder's."""
    given = {name: value for name, value in os.environ.items() if (name, value) != ("STILLHOUSE_SECRET_KEY", "")}
    return (
        {"STILLHOUSE_SECRET_KEY": _secret_key(folder / "secret.key")}
        | given
        | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "STILLHOUSE_STORE": f"file://{folder / 'store'}",  # not quoted: fsspec takes the path literally
            "STILLHOUSE_SCRATCH": str(folder / "scratch"),
            "STILLHOUSE_TEACHER_CACHE": str(folder / "teacher-cache"),
            "STILLHOUSE_NETWORK_CACHE": str(folder / "network-cache"),
        }
    )


def _secret_key(file: Path) -> str:
    """The key of this folder's service, made with its first start; the file is at no moment readable by others."""
    if not file.exists():
        unfinished = file.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writer:
            writer.write(base64.urlsafe_b64encode(os.urandom(32)))
            writer.flush()
            os.fsync(writer.fileno())  # without it no token can be read again
        unfinished.replace(file)
    return file.read_text()


def listen(requested: int | None) -> socket.socket:
    """Listens on the requested port, or on the default one or a free one. The API takes over what connects meanwhile.

    So nobody else is given the port while the API starts, for the first time or again. Raises PortTaken.
    """
    for port in (requested,) if requested else (DEFAULT_PORT, 0):
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    raise PortTaken(f"port {requested} is taken; leave --port out to get a free one")


def _child(name: str, module: Sequence[str], *, env: dict[str, str], log: Path, inherited: Sequence[int] = ()) -> Child:
    argv = [sys.executable, "-m", *module]
    return Child(name, argv, env=env, log=log, inherited=inherited, death_signal=signal.SIGKILL)


class _Records:
    """The database as a start needs it: migrated, and with a key.

    Its libraries take half a second to import, which the servers need not wait for.
    """

    def __init__(self, url: str) -> None:
        from alembic.util import CommandError

        from service.database import Database, upgrade

        try:
            upgrade(url)
        except CommandError as error:
            raise AnotherVersion(f"the database was migrated by another version of Stillhouse: {error}") from error
        self._database = Database(url, pool_size=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._database.close()

    def admin_key(self, left: Connection | None) -> str:
        """The key of the last run if this database still accepts it, else a new one."""
        from service.security import authenticate, create_key

        with self._database.transaction() as session:
            if left is not None:
                try:
                    authenticate(session, f"Bearer {left.api_key}")
                except Unauthenticated:
                    pass
                else:
                    return left.api_key
            return create_key(session, user_name="admin", role="admin", name="stillhouse up")[1]


def _is_ready(port: int) -> bool:
    """Whether the API answers that it is; asked many times while others import, so by the cheapest client there is."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=5.0)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
