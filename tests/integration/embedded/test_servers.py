"""PostgreSQL and Valkey from their wheels: private, lasting, and gone when their parent is."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.embedded.servers import FolderInUse, postgres, valkey

RUNS_BOTH = """
import json, sys, time
from pathlib import Path
from service.embedded.servers import postgres, valkey
folder = Path(sys.argv[1])
with postgres(folder / "postgres") as database, valkey(folder / "valkey") as server:
    print(json.dumps({"postgres": database.pid, "valkey": server.pid}), flush=True)
    time.sleep(600)
"""


def started(folder: Path) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    parent = subprocess.Popen([sys.executable, "-c", RUNS_BOTH, str(folder)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return parent, json.loads(parent.stdout.readline())


def run_sql(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_what_is_in_postgres_survives_a_restart(tmp_path: Path) -> None:
    with postgres(tmp_path / "postgres") as server:
        run_sql(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with postgres(tmp_path / "postgres") as server:
        assert run_sql(server.url, "SELECT answer FROM kept") == [(42,)]


def test_a_folder_in_use_is_refused_and_the_holder_is_named(tmp_path: Path) -> None:
    with valkey(tmp_path), pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"), valkey(tmp_path):
        pass


def test_both_servers_end_when_their_parent_is_killed_and_start_again(tmp_path: Path) -> None:
    parent, pids = started(tmp_path)
    servers = [psutil.Process(pids["postgres"]), psutil.Process(pids["valkey"])]
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(servers, timeout=60)
    assert not alive
    with postgres(tmp_path / "postgres") as server:
        assert run_sql(server.url, "SELECT 1") == [(1,)]


def test_a_postgres_that_outlived_its_parent_is_stopped_before_the_next_start(tmp_path: Path) -> None:
    parent, pids = started(tmp_path)
    leftover = psutil.Process(pids["postgres"])
    leftover.suspend()  # the kernel's word that the parent is gone stays unheard
    parent.kill()
    parent.communicate()
    assert leftover.is_running()
    signal.signal(signal.SIGALRM, lambda number, frame: leftover.resume())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with postgres(tmp_path / "postgres") as server:
        assert run_sql(server.url, "SELECT 1") == [(1,)]
    assert not leftover.is_running()


def test_nobody_else_can_come_near_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    with postgres(folder):
        assert (folder / "data").stat().st_mode & 0o077 == 0
        assert (folder / "socket").stat().st_mode & 0o077 == 0
        assert folder.stat().st_mode & 0o066 == 0, "others may pass at most, never list"


def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    with postgres(tmp_path / ("long" * 30)) as server:
        assert run_sql(server.url, "SELECT 1") == [(1,)]


def test_a_killed_valkey_starts_again_at_the_same_address(tmp_path: Path) -> None:
    with valkey(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        os.kill(server.pid, signal.SIGKILL)
        psutil.Process(server.pid).wait()
        server.start()
        assert client.ping()
        assert client.get("key") is None


def test_a_killed_postgres_starts_again_at_the_same_address_though_a_query_of_it_goes_on(tmp_path: Path) -> None:
    with postgres(tmp_path / "postgres") as server, psycopg.connect(server.url, autocommit=True) as client:
        run_sql(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        busy = psutil.Process(client.info.backend_pid)
        busy.suspend()  # as one that computes: it does not notice that its parent is gone
        os.kill(server.pid, signal.SIGKILL)
        psutil.Process(server.pid).wait()
        server.start()
        assert run_sql(server.url, "SELECT answer FROM kept") == [(42,)]
        with suppress(psutil.NoSuchProcess):
            assert busy.status() == psutil.STATUS_ZOMBIE, "it goes on"


def test_valkey_wants_the_password_and_tells_it_to_nobody(tmp_path: Path) -> None:
    with valkey(tmp_path, password='not on the "command line"/@') as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
        with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        assert "command line" not in " ".join(psutil.Process(server.pid).cmdline())
