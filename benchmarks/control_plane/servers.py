"""The servers that are measured: PostgreSQL, Valkey, one API process over a thousand jobs; an empty route; Ray's job server."""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.large_queue import Size, load
from service.database import Database, upgrade
from service.embedded.processes import Child
from service.embedded.servers import free_port, postgres, valkey
from service.notifications import Notifier
from service.security import create_key

SIZE = Size(jobs=1_000, queued=100, users=10, workers=25)
_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Service:
    """One API process, and the servers that it needs."""

    port: int
    key: str
    """An admin's."""
    database: Database
    """What it writes is published."""
    database_url: str
    redis_url: str
    processes: dict[str, int]
    """The process ids of those whose CPU time counts, by name."""

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """Runs the service without a worker, its jobs made up."""
    with ExitStack() as parts:
        server = parts.enter_context(postgres(folder / "postgres"))
        redis = parts.enter_context(valkey(folder / "valkey"))
        notifier = parts.enter_context(closing(Notifier(redis.url)))
        upgrade(server.url)
        database = parts.enter_context(closing(Database(server.url, pool_size=2, notify=notifier)))
        load(database, SIZE)
        with database.transaction() as session:
            _, key = create_key(session, user_name="admin", role="admin")
        env = {
            "DATABASE_URL": server.url,
            "REDIS_URL": redis.url,
            "STILLHOUSE_STORE": f"file://{folder}/store",
            "STILLHOUSE_SCRATCH": str(folder),
            "STILLHOUSE_REQUESTS_PER_SECOND": "1000000",
        }
        port = free_port()
        api = parts.enter_context(_running("api", ["service.cli", "serve", "--port", str(port)], folder, f":{port}/healthz", env))
        yield Service(port, key, database, server.url, redis.url, {"API": api, "PostgreSQL": server.pid})


@contextmanager
def empty_route(folder: Path) -> Iterator[tuple[int, int]]:
    """Runs a FastAPI application of one route under the same settings of uvicorn; yields its port and its process id."""
    port = free_port()
    with _running("empty", ["benchmarks.control_plane.empty_route", str(port)], folder, f":{port}/", {}) as pid:
        yield port, pid


@contextmanager
def ray(environment: Path, folder: Path) -> Iterator[tuple[int, int, str]]:
    """Runs Ray's job server with one finished job; yields its port, its process id and the job's id.

    ``environment`` is a virtual environment that holds ``ray[default]``; it is made if it is not there.
    """
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    if subprocess.run([python, "-c", "import ray.dashboard.modules.job"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "-q", "ray[default]"], check=True)
    port, head = free_port(), free_port()
    command = [str(environment / "bin" / "ray"), "start", "--head", "--block", "--num-cpus=1", f"--port={head}"]
    command += ["--disable-usage-stats", "--include-dashboard=true", f"--dashboard-port={port}", f"--temp-dir={folder}/ray"]
    with (folder / "ray.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            base = f"http://127.0.0.1:{port}/api/jobs/"
            _until_answered(base, server)
            made = httpx.post(base, json={"entrypoint": "true"}, trust_env=False, timeout=60)
            job_id = made.raise_for_status().json()["submission_id"]
            while httpx.get(base + job_id, trust_env=False).json()["status"] not in {"SUCCEEDED", "FAILED", "STOPPED"}:
                time.sleep(0.2)
            children = psutil.Process(server.pid).children(recursive=True)
            dashboard = next(each for each in children if any("dashboard/dashboard.py" in part for part in each.cmdline()))
            yield port, dashboard.pid, job_id
        finally:
            family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            for each in family:
                if each.is_running():
                    each.kill()
            server.wait()


@contextmanager
def _running(name: str, module: Sequence[str], folder: Path, path: str, env: dict[str, str]) -> Iterator[int]:
    child = Child(name, [sys.executable, "-m", *module], env=os.environ | env, log=folder / f"{name}.log")
    child.start()
    try:
        child.wait_until(lambda: _answers(f"http://127.0.0.1{path}"), timeout_seconds=_READY_SECONDS)
        yield child.pid
    finally:
        child.stop(grace_seconds=10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def _until_answered(url: str, server: "subprocess.Popen[bytes]") -> None:
    while not _answers(url):
        if server.poll() is not None:
            raise RuntimeError(f"Ray ended: {json.dumps(server.args, default=str)}")
        time.sleep(0.2)
