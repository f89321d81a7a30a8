"""How soon ``stillhouse up`` is ready, and how soon a posted job takes its first step: ``python -m benchmarks.start_latency``.

Everything is seen from outside: a start lasts from the command to its word that it is ready, a job from before its POST until
the event of its first optimizer step has arrived on its stream of events. So check, claim, reading the data, building the
networks and recording are all in it. Jobs are posted one at a time to an idle worker, and one at the very moment of each start.

In each round a fresh ``python -c "import torch, transformers"`` is timed too, what a trainer started by hand pays before anything
else; the ratio to it says more than seconds on a machine that does other things meanwhile.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.client import Client
from service.connection import read_connection

SPEC = {
    "name": "start latency",
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 16}, "training": {"max_steps": 5}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
    "training": {"max_steps": 5},
}
_IDLE_SECONDS = 2.0
"""After a job: by then the worker has forked spare processes in the place of those that the job took."""


@contextmanager
def up(folder: Path, *, preflight: bool = True) -> Iterator[tuple[Client, float]]:
    """Runs ``stillhouse up``; yields a client and the seconds until it was ready."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "service.cli", "up", "--data-dir", str(folder)]
    environment = os.environ | {"STILLHOUSE_PREFLIGHT": str(preflight)}
    with (folder.parent / "up.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    try:
        assert process.stdout is not None
        if not any(b"ready at" in line for line in process.stdout):
            raise RuntimeError(f"it did not start:\n{(folder.parent / 'up.log').read_text()}")
        seconds = time.perf_counter() - started
        connection = read_connection(folder)
        assert connection is not None
        with Client(connection.url, connection.api_key) as client:
            yield client, seconds
    finally:
        process.terminate()
        process.communicate()


def seconds_to_first_step(client: Client) -> float:
    """Seconds from before the POST until the client knows of the first optimizer step; returns once the job has ended."""
    posted_at = time.perf_counter()
    job = client.submit(SPEC)
    for event in client.events(job.id):
        if event.type == "progress" and (event.data or {}).get("step", 0) > 0:
            seconds = time.perf_counter() - posted_at
            client.wait(job.id)
            return seconds
    raise RuntimeError(f"{job.id} took no step: {client.job(job.id).error}")


def seconds_to_import() -> float:
    """A fresh interpreter that imports torch and transformers, from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=20)
    options = parser.parse_args()
    ready: list[float] = []
    at_once: list[float] = []
    imports: list[float] = []
    steps: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        with up(folder):
            pass  # the first start makes the database
        for _ in range(options.starts):
            imports.append(seconds_to_import())
            with up(folder) as (client, seconds):
                ready.append(seconds)
                at_once.append(seconds_to_first_step(client))
        for preflight, found in steps.items():
            with up(folder, preflight=preflight) as (client, _):
                seconds_to_first_step(client)
                for _ in range(options.jobs):
                    time.sleep(_IDLE_SECONDS)
                    found.append(seconds_to_first_step(client))
                    imports.append(seconds_to_import())
    fresh = statistics.median(imports)
    for name, values in (
        ("up to ready", ready),
        ("POST at that moment to first step", at_once),
        ("POST to first step, with the check", steps[True]),
        ("POST to first step, without", steps[False]),
        ("fresh import", imports),
    ):
        p50 = statistics.median(values)
        span = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:36} p50 {p50:7.3f} s, {p50 / fresh:5.2f} of a fresh import; {span} ({len(values)})")


if __name__ == "__main__":
    main()
