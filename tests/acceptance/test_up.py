"""``stillhouse up``: starts, says how to reach it, refuses a second, stops, leaves nothing behind, keeps what it had."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from service.client import Client
from service.connection import read_connection
from service.embedded.servers import postgres
from tests.trainers import trainers_of


@contextmanager
def up(folder: Path, environment: dict[str, str], said: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A ready ``stillhouse up``, what it said until then in ``said``; killed at the end if it has not ended."""
    said = [] if said is None else said
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "up", "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        else:
            raise AssertionError(f"it did not start: {process.stderr.read()}")
        assert re.search(r"ready at http://127\.0\.0\.1:\d+", "".join(said))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def all_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return list(psutil.Process(process.pid).children(recursive=True))


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def connected(folder: Path) -> Client:
    connection = read_connection(folder)
    assert connection is not None
    return Client(connection.url, connection.api_key, max_retries=20)  # on a busy machine an API is away for half a minute


def me_by_shell(said: list[str]) -> dict[str, str]:
    """Who a shell is to the service once it has run the line that exports address and key."""
    (line,) = [line.partition("export ")[2] for line in said if "export STILLHOUSE_URL=" in line]
    curl = 'curl -sS --fail --noproxy "*" -H "Authorization: Bearer $STILLHOUSE_API_KEY" "$STILLHOUSE_URL/v1/me"'
    done = subprocess.run(["bash", "-ec", f"export {line}\n{curl}"], capture_output=True, text=True, check=True)
    me: dict[str, str] = json.loads(done.stdout)
    return me


def test_killed_outright_it_takes_everything_along_and_the_next_goes_on_with_its_jobs_and_stops_on_sigterm(
    tmp_path: Path, environment: dict[str, str], spec: dict[str, object]
) -> None:
    folder = tmp_path / "data"
    said: list[str] = []
    with up(folder, environment, said) as process:
        assert me_by_shell(said)["role"] == "admin"
        assert (folder / "connection.json").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o066 == 0
        with connected(folder) as client:
            job_id = client.submit(spec).id
        children = all_of(process)
        assert len(children) >= 4
        process.kill()
        process.wait()
        assert_gone(children)
    key = read_connection(folder)
    assert key is not None
    with up(folder, environment) as process:
        with connected(folder) as client:
            assert read_connection(folder) == key.model_copy(update={"url": client.url}), "the key stays"
            job = client.wait(job_id, timeout_seconds=240)
            assert job.status == "succeeded", job.error
        second = subprocess.run(
            [sys.executable, "-m", "service.cli", "up", "--data-dir", str(folder)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in second.stderr
        children = all_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert_gone(children)
    kept = read_connection(folder)
    assert kept is not None
    assert kept.api_key == key.api_key
    with postgres(folder / "postgres") as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT id, status FROM jobs").fetchall() == [(job_id, "succeeded")]


def test_a_folder_that_a_newer_version_has_used_is_refused_in_a_sentence(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with postgres(folder / "postgres") as server, psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    command = [sys.executable, "-m", "service.cli", "up", "--data-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if not line.startswith("·")]
    assert "migrated by another version of Stillhouse" in error


def part(process: subprocess.Popen[str], word: str) -> psutil.Process:
    """The part of the stack that is the program ``word``, or is run with that word."""
    children = {child: child.cmdline() for child in psutil.Process(process.pid).children()}
    (found,) = [child for child, words in children.items() if word in words or Path(words[0]).name == word]
    return found


def said_next(process: subprocess.Popen[str], words: str) -> None:
    """Waits until it says so."""
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), f"it ended without {words!r}"


def test_each_part_that_is_killed_is_started_again_and_the_running_job_goes_on(
    tmp_path: Path, environment: dict[str, str], spec: dict[str, object]
) -> None:
    folder = tmp_path / "data"
    with up(folder, environment) as process, connected(folder) as client:
        long = client.submit(spec | {"training": {"max_steps": 1_000_000, "checkpoint_steps": 200}})
        events = client.events(long.id)
        next(event for event in events if event.type == "progress" and (event.data or {})["phase"] == "student")
        for trainer in trainers_of(part(process, "worker").pid):
            trainer.nice(19)  # nobody waits for what it trains
        for word, name in (("postgres", "PostgreSQL"), ("valkey-server", "Valkey"), ("serve", "API")):
            part(process, word).kill()
            said_next(process, f"{name} ended by signal SIGKILL; starting it again")
            assert client.job(long.id).attempt == 1
        part(process, "postgres").children()[0].kill()  # PostgreSQL itself ends its others for it, and goes on
        next(event for event in events if event.type == "progress")
        assert client.job(long.id).attempt == 1
        part(process, "worker").kill()
        said_next(process, "worker ended by signal SIGKILL; starting it again")
        client.cancel(long.id, keep="none")
        assert client.wait(client.submit(spec).id, timeout_seconds=240).status == "succeeded"
        (folder / "postgres/data/PG_VERSION").write_text("1\n")
        children = all_of(process)
        part(process, "postgres").kill()
        assert process.wait() == 1
        assert_gone(children)
        said_next(process, "PostgreSQL ended with exit code 1, and again each time it was started anew")
        said_next(process, "FATAL:  database files are incompatible with server")
