"""A primary of PostgreSQL and its streaming replica, which acknowledges every commit, so that a fail-over loses none.

What Patroni or a cloud's database does: a dead primary stays down, the replica is promoted, clients are led there, and a new
replica is made. While there is no replica, commits do without one.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import TupleRow

from service.embedded.servers import postgres
from tests.faults.disks import Disk
from tests.faults.parts import Part, descendants
from tests.faults.waiting import until

_START_SECONDS = 60.0
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "wal_keep_size": "64MB",
    "wal_retrieve_retry_interval": "200ms",
    "synchronous_commit": "remote_apply",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Node:
    """One server, which may be the primary or the replica, with its data on a disk of its own."""

    def __init__(self, name: str, disk: Disk, *, port: int, binaries: Path, user: str) -> None:
        self.disk, self.port, self._binaries = disk, port, binaries
        self._user = user if os.geteuid() == 0 else ""
        self.data = disk.folder / "postgres" / "data"
        options = _OPTIONS | {"port": str(port), "cluster_name": name.replace(" ", "-")}
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        self.part = Part(
            name,
            [str(binaries / "postgres"), "-D", str(self.data), *arguments],
            log=disk.folder.with_name(f"{disk.folder.name}.log"),
            environment=os.environ | {"LC_ALL": "C"},
            user=self._user,
            stop_signal=signal.SIGINT,
        )

    @property
    def url(self) -> str:
        """Its own address, past the proxy."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def execute(self, *statements: str) -> list[TupleRow]:
        """Executes statements, each by itself; returns the rows of the last."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor: Any = None
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            return bool(self.execute("SELECT 1"))
        return False

    def wait_until_it_answers(self) -> None:
        until(self.answers, f"{self.part.name} does not answer", timeout_seconds=_START_SECONDS)

    def copy_from(self, primary: "Node") -> None:
        """Becomes a replica of ``primary``; it does not run."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.parent.mkdir(exist_ok=True, mode=0o711)
        run_as: dict[str, Any] = {}
        if self._user:
            shutil.chown(self.data.parent, self._user)
            entry = pwd.getpwnam(self._user)
            run_as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        options = ["-R", "-X", "stream", "-c", "fast"]
        command = [str(self._binaries / "pg_basebackup"), "-d", primary.url, "-D", str(self.data), *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", **run_as)
        assert done.returncode == 0, f"pg_basebackup: {done.stderr}"


class PostgresPair:
    """The primary and its replica. ``lead_to`` leads clients to a port."""

    def __init__(self, primary: Node, replica: Node | None, lead_to: Callable[[int], None]) -> None:
        self.primary, self.replica, self._lead_to = primary, replica, lead_to
        self.num_fail_overs = 0

    def make_replica(self) -> None:
        """Copies the primary to the other node, and waits until every commit goes there too."""
        assert self.replica is not None
        self.replica.copy_from(self.primary)
        self.replica.part.start()
        self._wait_for_replica()

    @property
    def is_in_sync(self) -> bool:
        """Whether the replica has every commit."""
        return self._replicates("streaming", sync_state="sync")

    def _wait_for_replica(self) -> None:
        until(lambda: self._replicates("streaming"), "the replica does not follow", timeout_seconds=_START_SECONDS)
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        until(lambda: self.is_in_sync, "no commit waits for the replica", timeout_seconds=_START_SECONDS)

    def _replicates(self, state: str, *, sync_state: str = "%") -> bool:
        query = f"SELECT 1 FROM pg_stat_replication WHERE state = '{state}' AND sync_state LIKE '{sync_state}'"
        with suppress(psycopg.Error):
            return bool(self.primary.execute(query))
        return False

    def fail_over(self) -> None:
        """Kills the primary, promotes the replica, leads clients there, and makes a replica of the dead one."""
        assert self.replica is not None
        old, new = self.primary, self.replica
        with old.part.kept_down():
            processes = descendants(old.part.pid or 0)
            old.part.kill()
            new.execute("SELECT pg_promote(true, 60)")
            new.execute("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
            self.primary, self.replica = new, old
            self._lead_to(new.port)
            self.num_fail_overs += 1
            psutil.wait_procs(processes, timeout=20)
            old.copy_from(new)
        self._wait_for_replica()

    @contextmanager
    def led_to_replica(self) -> Iterator[None]:
        """Clients are at the replica inside the block, which reads and does not write: a fail-over that is half done."""
        assert self.replica is not None
        self._lead_to(self.replica.port)
        try:
            yield
        finally:
            self._lead_to(self.primary.port)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """The primary refuses every write inside the block."""
        self.primary.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        try:
            yield
        finally:
            self.primary.execute(
                "SET default_transaction_read_only = off",
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            )

    def stop(self) -> None:
        """The replica first: without it commits need nobody."""
        for node in (self.replica, self.primary):
            if node is not None:
                node.part.stop()


def programs(disk: Disk) -> tuple[Path, str]:
    """Makes an empty database on the disk as ``stillhouse up`` does; returns the folder of its programs, and its user."""
    folder = disk.folder / "postgres"
    with postgres(folder):
        pid = int((folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        process = psutil.Process(pid)
        return Path(process.exe()).parent, process.username()
