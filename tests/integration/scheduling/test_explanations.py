"""Explanations of waiting jobs in random situations, checked by the oracle."""

import os
import random
from typing import Any

import pytest

from tests.integration.scheduling.cluster import HOUR, Cluster

SEEDS = range(int(os.environ.get("STILLHOUSE_TEST_SITUATIONS", "3")))
STEPS = 40


def happen(cluster: Cluster, chance: random.Random) -> None:
    """Applies one random event to a cluster."""
    running = [job_id for machine in cluster.machines.values() if machine.beats for job_id in sorted(machine.running)]
    queued = sorted(cluster.queued())
    owner = chance.choice(["ana", "ben", "cem", "dan"])
    match chance.choices(range(11), weights=(30, 14, 8, 6, 4, 3, 8, 3, 2, 2, 2))[0]:
        case 0:
            need: dict[str, Any] = chance.choice(
                [{"gpus": chance.choice([1, 1, 2, 2, 3, 4])}, {"cpu_slots": chance.choice([1, 1, 2])}]
            )
            memory: dict[str, Any] = {"min_gpu_memory_gib": 40.0} if "gpus" in need and chance.random() < 0.3 else {}
            priority = chance.choices(["low", "normal", "high"], weights=(4, 5, 2))[0]
            runtime = chance.choice([HOUR // 2, 3 * HOUR, 12 * HOUR, 24 * HOUR, 48 * HOUR])
            cluster.forward(1)  # no two are of the same age
            cluster.submit(owner, priority=priority, max_runtime_seconds=runtime, **need, **memory)
        case 1:
            cluster.claim(chance.choice([name for name, machine in cluster.machines.items() if machine.beats]))
        case 2 if running:
            end(cluster, chance.choice(running), chance)
        case 3 if running:
            cluster.report_remaining(chance.choice(running), remaining_seconds=chance.choice([60, HOUR, 5 * HOUR, 30 * HOUR]))
        case 4 if queued:
            chance.choice([cluster.cancel, cluster.pause])(chance.choice(queued))
        case 5 if queued:
            cluster.edit(chance.choice(queued), priority=chance.choice(["low", "normal", "high"]))
        case 6:
            cluster.forward(chance.choice([10, 60, 700, HOUR, 4 * HOUR, 26 * HOUR]))
        case 7:
            cluster.user(owner, weight=chance.choice([1, 2]), max_running=chance.choice([None, None, 0, 1, 3]))
        case 8:
            host = chance.choice([name for name, machine in cluster.machines.items() if machine.beats])
            chance.choice([cluster.drain, cluster.undrain])(host)
        case 9 if running:
            cluster.pause(chance.choice(running))
        case 10:
            cluster.fill()
    if chance.random() < 0.4:
        cluster.sweep()


def end(cluster: Cluster, job_id: str, chance: random.Random) -> None:
    stop = cluster.job(job_id).stop_requested
    if stop is not None:
        cluster.stop(job_id, stop)
    else:
        chance.choice([cluster.succeed, cluster.succeed, cluster.crash])(job_id)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_explanation_of_each_waiting_job_is_right(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    cluster.host("gpu-1", gpus=4)
    cluster.host("gpu-2", gpus=2, memory=[16.0, 40.0])
    cluster.host("gpu-3", gpus=4, memory=16.0, slots=3)
    for _ in range(STEPS):
        happen(cluster, chance)
        if chance.random() < 0.25:
            cluster.check()
