"""From ``POST /v1/jobs`` to the trainer's first step, against a fresh interpreter: ``python -m benchmarks.start_latency``.

By default each job is checked first, as it is for people; ``--unchecked`` leaves that out. The stack of ``stillhouse up`` runs in
a temporary folder, its worker idle. In each round a job is posted, and a fresh ``python -c "import torch, transformers"``, what a
trainer started by hand pays before anything else, is timed to its end; the two take turns, so that a busy moment of the machine
falls on both. The first step's time is the recorded event's own, which the supervisor writes once the trainer told of it,
so check, claim, fork, reading the data, building the networks and recording are all in it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from service.client import Client
from service.embedded.stack import stack

SPEC = {
    "name": "start latency",
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 16}, "training": {"max_steps": 5}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
    "training": {"max_steps": 5},
}


def seconds_to_first_step(client: Client) -> tuple[float, float]:
    """Seconds from before the POST to the claim, and to the first optimizer step."""
    posted_at = datetime.now(UTC)
    job = client.submit(SPEC)
    claimed = first_step = None
    for event in client.events(job.id):
        if event.type == "job.running":
            claimed = event.created_at
        if event.type == "progress" and (event.data or {}).get("step", 0) > 0 and first_step is None:
            first_step = event.created_at
    assert claimed is not None
    assert first_step is not None
    return (claimed - posted_at).total_seconds(), (first_step - posted_at).total_seconds()


def seconds_to_import() -> float:
    """A fresh interpreter that imports torch and transformers, from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--unchecked", action="store_true")
    options = parser.parse_args()
    rounds = options.rounds
    if options.unchecked:
        os.environ["STILLHOUSE_PREFLIGHT"] = "false"
    claims, first_steps, imports = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        stack(Path(folder), say=lambda text: None) as running,
        Client(running.connection.url, running.connection.api_key) as client,
    ):
        for round_index in range(rounds + 1):
            claim, first_step = seconds_to_first_step(client)
            fresh = seconds_to_import()
            if round_index > 0:  # the first warms up
                claims.append(claim)
                first_steps.append(first_step)
                imports.append(fresh)
    for name, values in (("POST to claim", claims), ("POST to first step", first_steps), ("fresh import", imports)):
        print(f"{name:20} median {statistics.median(values):7.3f} s   {min(values):.3f} to {max(values):.3f}")
    print(f"the first step comes after {statistics.median(first_steps) / statistics.median(imports):.3f} of a fresh import")


if __name__ == "__main__":
    main()
