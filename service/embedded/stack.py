"""The stack of one data directory: PostgreSQL, Valkey, API and worker, started in this order and stopped in reverse.

    DATA/connection.json   address and admin key, for the clients of this machine
    DATA/postgres, valkey  data of the servers
    DATA/store, scratch    artifacts and datasets; running jobs' files
    DATA/teacher-cache     outputs of teachers on datasets
    DATA/logs              api.log, worker.log

One process locks a data directory at a time; its child processes end with it, and one that ends by itself is started again.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import func, select

from service.clock import seconds_sql
from service.connection import Connection, read_connection, write_connection
from service.database import Database, upgrade
from service.embedded.keeper import Keeper
from service.embedded.processes import Child
from service.embedded.servers import Postgres, Valkey, exclusive, free_port, postgres, valkey
from service.errors import Unauthenticated
from service.security import authenticate, create_key
from service.tables import Worker

DEFAULT_PORT = 8321
_READY_SECONDS = 120.0
"""Long, because the worker imports torch and transformers first, which takes time on a slow disk."""
_API_STOP_SECONDS = 15.0
_WORKER_STOP_SECONDS = 90.0
"""For the drain: every trainer writes a checkpoint, every job goes back to the queue."""


class PortTaken(RuntimeError):
    """Another program listens on the requested port."""


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
    """Starts everything and yields once the API is ready and the worker takes jobs.

    From then on what ends by itself is started again. ``say`` is called with each step. ``hurried()`` turning true ends a slow
    stop. The default port is 8321, or a free one.

    Raises:
        FolderInUse: another process runs the stack of this folder.
        PortTaken: the requested port is taken.
        ChildDied: a process does not start; the message contains the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    with ExitStack() as parts:
        parts.enter_context(exclusive(folder))
        keeper = parts.enter_context(Keeper(say))
        port = _port(port)
        logs = folder / "logs"
        for sub in (logs, folder / "store", folder / "scratch"):
            sub.mkdir(exist_ok=True, mode=0o700)

        say("starting PostgreSQL")
        database_server = parts.enter_context(postgres(folder / "postgres"))
        say("starting Valkey")
        broker = parts.enter_context(valkey(folder / "valkey"))
        say("migrating the database")
        upgrade(database_server.url)
        database = Database(database_server.url, pool_size=1)
        parts.callback(database.close)
        connection = Connection(url=f"http://127.0.0.1:{port}", api_key=_admin_key(database, folder))
        write_connection(folder, connection)

        env = os.environ | {
            "DATABASE_URL": database_server.url,
            "DATABASE_DIRECT_URL": "",
            "REDIS_URL": broker.url,
            "STILLHOUSE_STORE": f"file://{folder / 'store'}",  # not quoted: fsspec takes the path literally
            "STILLHOUSE_SCRATCH": str(folder / "scratch"),
            "STILLHOUSE_TEACHER_CACHE": str(folder / "teacher-cache"),
        }
        api = _child("API", ["service.cli", "serve", "--host", "127.0.0.1", "--port", str(port)], env=env, log=logs / "api.log")
        worker = _child("worker", ["worker", *(["--devices", devices] if devices else [])], env=env, log=logs / "worker.log")
        parts.callback(api.stop, grace_seconds=_API_STOP_SECONDS, hurried=hurried)
        parts.callback(worker.stop, grace_seconds=_WORKER_STOP_SECONDS, hurried=hurried)
        parts.callback(say, "stopping: running jobs write a checkpoint and go back to the queue")
        say("starting the API and a worker (it loads torch and transformers)")
        api.start()
        worker.start()
        api.wait_until(lambda: _is_ready(connection.url), timeout_seconds=_READY_SECONDS)
        worker.wait_until(lambda: _is_registered(database, worker.pid), timeout_seconds=_READY_SECONDS)
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


def _child(name: str, module: Sequence[str], *, env: dict[str, str], log: Path) -> Child:
    return Child(name, [sys.executable, "-m", *module], env=env, log=log, death_signal=signal.SIGKILL)


def _port(requested: int | None) -> int:
    port = free_port(preferred=requested or DEFAULT_PORT)
    if requested and port != requested:
        raise PortTaken(f"port {requested} is taken; leave --port out to get a free one")
    return port


def _admin_key(database: Database, folder: Path) -> str:
    """The key of the last run if this database still accepts it, else a new one."""
    left = read_connection(folder)
    with database.transaction() as session:
        if left is not None:
            try:
                authenticate(session, f"Bearer {left.api_key}")
            except Unauthenticated:
                pass
            else:
                return left.api_key
        return create_key(session, user_name="admin", role="admin", name="stillhouse up")[1]


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _is_registered(database: Database, pid: int) -> bool:
    with database.transaction() as session:
        alive = Worker.stopped_at.is_(None) & (Worker.heartbeat_at > func.now() - seconds_sql(30))
        return bool(session.scalar(select(func.count()).where(Worker.pid == pid, alive)))
