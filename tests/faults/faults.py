"""What goes wrong: one function for each fault, which makes it, waits until it is over, and tells what it did.

A fault returns None where there was nothing to make it with, as no trainer ran that could be killed. It is drawn again then.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial

import psutil
import redis

from tests.faults.cluster import LEASE_SECONDS, QUEUE, Cluster
from tests.faults.crash_points.sitecustomize import POINTS
from tests.faults.parts import Part, descendants
from tests.faults.proxy import Proxy

Make = Callable[[Cluster, random.Random], str | None]
_PAST_THE_LEASE = (LEASE_SECONDS + 1, LEASE_SECONDS + 4)
_PAST_A_FORK = (2.0, 15.0)
_BRIEFLY = (0.5, 6.0)
_POISONS = ("no JSON", "[]", "[1, 2]", "null", '{"body": 1}', '{"properties": {}, "headers": {}, "body": "e30="}', "\x00\xff")
_CRASH_WITHIN_SECONDS = 8.0


@dataclass(frozen=True)
class Fault:
    """``holds`` is what no other fault may touch meanwhile; ``weight`` how often it is drawn, in comparison."""

    name: str
    make: Make
    holds: str
    weight: float = 1.0


def _held(how_long: tuple[float, float], block: AbstractContextManager[object], rng: random.Random) -> str:
    seconds = rng.uniform(*how_long)
    with block:
        time.sleep(seconds)
    return f"for {seconds:.1f} s"


# ---------------------------------------------------------------- processes


def _kill_trainer(cluster: Cluster, rng: random.Random) -> str | None:
    trainers = cluster.trainers()
    if not trainers:
        return None
    trainer = rng.choice(trainers)
    with suppress(ProcessLookupError):
        os.kill(trainer.pid, signal.SIGKILL)
    return f"of {trainer.job_id}{', its check' if trainer.is_check else ''}"


def _freeze_trainer(cluster: Cluster, rng: random.Random) -> str | None:
    trainers = cluster.trainers()
    if not trainers:
        return None
    trainer = rng.choice(trainers)
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(trainer.pid)
        process.suspend()
        time.sleep(seconds := rng.uniform(*_PAST_THE_LEASE))
        process.resume()
        return f"of {trainer.job_id} for {seconds:.1f} s"
    return None


def _kill_fork_server(cluster: Cluster, rng: random.Random) -> str | None:
    servers = cluster.fork_servers()
    if not servers:
        return None
    with suppress(psutil.NoSuchProcess):
        rng.choice(servers).kill()
        return ""
    return None


def _freeze_fork_server(cluster: Cluster, rng: random.Random) -> str | None:
    """It stands still until its worker has replaced it, or for longer than the worker waits for a fork."""
    servers = cluster.fork_servers()
    if not servers:
        return None
    with suppress(psutil.NoSuchProcess):
        server = rng.choice(servers)
        server.suspend()
        give_up_at = time.monotonic() + (seconds := rng.uniform(*_PAST_A_FORK))
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE and time.monotonic() < give_up_at:
            time.sleep(0.1)
        server.resume()
        return f"for {seconds:.1f} s"
    return "until its worker killed it"


def _kill(part: str, cluster: Cluster, rng: random.Random) -> str | None:
    chosen = _choose(cluster, part, rng)
    if chosen.pid is None:
        return None
    if rng.random() < 0.5:
        chosen.kill()
        return f"{chosen.name}, started again at once"
    with chosen.kept_down():
        chosen.kill()
        time.sleep(seconds := rng.uniform(*_PAST_THE_LEASE))
    return f"{chosen.name}, down for {seconds:.1f} s"


def _restart(part: str, cluster: Cluster, rng: random.Random) -> str | None:
    chosen = _choose(cluster, part, rng)
    if chosen.pid is None:
        return None
    chosen.signal(signal.SIGTERM)
    return chosen.name


def _freeze(part: str, cluster: Cluster, rng: random.Random) -> str | None:
    chosen, with_children = _choose(cluster, part, rng), rng.random() < 0.5
    if chosen.pid is None:
        return None
    told = _held((2.0, _PAST_THE_LEASE[1]), chosen.frozen(with_children=with_children), rng)
    return f"{chosen.name} {'and its children ' if with_children else ''}{told}"


def _choose(cluster: Cluster, part: str, rng: random.Random) -> Part:
    return {"worker": rng.choice(cluster.workers), "api": rng.choice(cluster.apis), "valkey": cluster.valkey.part}[part]


# ---------------------------------------------------------------- PostgreSQL


def _kill_postgres(cluster: Cluster, rng: random.Random) -> str | None:
    part = cluster.postgres.primary.part
    if part.pid is None:
        return None
    with part.kept_down():
        part.kill()
        time.sleep(seconds := rng.uniform(0, 6))
    return f"down for {seconds:.1f} s"


def _kill_backend(cluster: Cluster, rng: random.Random) -> str | None:
    backends = [child for child in descendants(cluster.postgres.primary.part.pid or 0) if child.pid]
    serving = [child for child in backends if _serves_a_client(child)]
    if not serving:
        return None
    with suppress(psutil.NoSuchProcess):
        rng.choice(serving).kill()
    return "so that PostgreSQL recovers"


def _serves_a_client(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "127.0.0.1" in " ".join(process.cmdline())
    return False


def _freeze_postgres(cluster: Cluster, rng: random.Random) -> str | None:
    part = cluster.postgres.primary.part
    return None if part.pid is None else _held((2.0, 12.0), part.frozen(with_children=True), rng)


def _read_only(cluster: Cluster, rng: random.Random) -> str | None:
    return _held((2.0, 9.0), cluster.postgres.read_only(), rng)


def _half_a_fail_over(cluster: Cluster, rng: random.Random) -> str | None:
    return _held((1.0, 7.0), cluster.postgres.led_to_replica(), rng) if cluster.postgres.is_in_sync else None


def _fail_over(cluster: Cluster, rng: random.Random) -> str | None:
    if not cluster.postgres.is_in_sync:
        return None
    cluster.postgres.fail_over()
    return f"to {cluster.postgres.primary.part.name}"


# ---------------------------------------------------------------- Valkey


def _become_replica(cluster: Cluster, rng: random.Random) -> str | None:
    with suppress(redis.RedisError), cluster.valkey.connect() as client:
        client.replicaof("127.0.0.1", "1")
        time.sleep(seconds := rng.uniform(0.2, 4))
        client.replicaof("NO", "ONE")
        return f"for {seconds:.1f} s"
    return None


def _flush(cluster: Cluster, rng: random.Random) -> str | None:
    with suppress(redis.RedisError), cluster.valkey.connect() as client:
        client.flushall()
        return ""
    return None


def _poison(cluster: Cluster, rng: random.Random) -> str | None:
    poison = rng.choice(_POISONS)
    with suppress(redis.RedisError), cluster.valkey.connect() as client:
        client.lpush(QUEUE, *[poison] * 4)
        return repr(poison)
    return None


def _wrong_type(cluster: Cluster, rng: random.Random) -> str | None:
    with suppress(redis.RedisError), cluster.valkey.connect() as client:
        client.delete(QUEUE)
        client.set(QUEUE, "no list")
        time.sleep(rng.uniform(*_BRIEFLY))
        client.delete(QUEUE)
        return ""
    return None


# ---------------------------------------------------------------- the network, disks, clocks, points


def _reset(which: str, cluster: Cluster, rng: random.Random) -> str | None:
    _proxy(cluster, which).reset()
    return ""


def _stall(which: str, cluster: Cluster, rng: random.Random) -> str | None:
    return _held((2.0, 9.0), _proxy(cluster, which).stalled(), rng)


def _refuse(which: str, cluster: Cluster, rng: random.Random) -> str | None:
    return _held(_BRIEFLY, _proxy(cluster, which).refusing(), rng)


def _proxy(cluster: Cluster, which: str) -> Proxy:
    return cluster.postgres_proxy if which == "postgres" else cluster.valkey_proxy


def _fill(which: str, cluster: Cluster, rng: random.Random) -> str | None:
    disk = cluster.postgres.primary.disk if which == "database" else cluster.disks[which]
    return _held(_BRIEFLY, disk.full(), rng) if disk.is_own else None


def _store_away(cluster: Cluster, rng: random.Random, *, empty: bool) -> str | None:
    return _held(_BRIEFLY, cluster.store.away(leaving_an_empty_folder=empty), rng)


def _clock_jumps(cluster: Cluster, rng: random.Random) -> str | None:
    if not cluster.clocks:
        return None
    clock = rng.choice(cluster.clocks)
    clock.write_text(f"{(jump := rng.choice(('-2h', '+2h', '+0', '-1d', '+40s')))}\n")
    return f"of {clock.stem} to {jump}"


def _crash_at(point: str, cluster: Cluster, rng: random.Random) -> str | None:
    armed = cluster.crash_points / point
    armed.touch()
    give_up_at = time.monotonic() + _CRASH_WITHIN_SECONDS
    while armed.exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    try:
        armed.unlink()
    except FileNotFoundError:
        return ""
    return None


FAULTS: Sequence[Fault] = (
    Fault("a trainer is killed", _kill_trainer, "trainers", 2),
    Fault("a trainer freezes", _freeze_trainer, "trainers"),
    Fault("the fork server is killed", _kill_fork_server, "trainers"),
    Fault("the fork server is frozen", _freeze_fork_server, "trainers"),
    Fault("a worker is killed", partial(_kill, "worker"), "workers", 2),
    Fault("a worker freezes past its lease", partial(_freeze, "worker"), "workers", 3),
    Fault("a worker is restarted", partial(_restart, "worker"), "workers"),
    Fault("an API is killed", partial(_kill, "api"), "apis", 2),
    Fault("an API freezes", partial(_freeze, "api"), "apis"),
    Fault("an API is restarted", partial(_restart, "api"), "apis"),
    Fault("PostgreSQL is killed", _kill_postgres, "database", 2),
    Fault("a backend of PostgreSQL is killed", _kill_backend, "database"),
    Fault("PostgreSQL freezes", _freeze_postgres, "database", 2),
    Fault("PostgreSQL is read-only", _read_only, "database", 2),
    Fault("clients are at the replica", _half_a_fail_over, "database"),
    Fault("PostgreSQL fails over", _fail_over, "database", 3),
    Fault("the database's disk is full", partial(_fill, "database"), "database", 2),
    Fault("connections to PostgreSQL are reset", partial(_reset, "postgres"), "database's network", 2),
    Fault("connections to PostgreSQL stall", partial(_stall, "postgres"), "database's network", 2),
    Fault("PostgreSQL refuses connections", partial(_refuse, "postgres"), "database's network"),
    Fault("Valkey is killed", partial(_kill, "valkey"), "valkey", 2),
    Fault("Valkey freezes", partial(_freeze, "valkey"), "valkey"),
    Fault("Valkey becomes a replica", _become_replica, "valkey", 2),
    Fault("Valkey is flushed", _flush, "valkey"),
    Fault("a message is poison", _poison, "valkey", 2),
    Fault("the queue's key has another type", _wrong_type, "valkey"),
    Fault("connections to Valkey are reset", partial(_reset, "valkey"), "valkey's network"),
    Fault("connections to Valkey stall", partial(_stall, "valkey"), "valkey's network"),
    Fault("Valkey refuses connections", partial(_refuse, "valkey"), "valkey's network"),
    Fault("the store's disk is full", partial(_fill, "store"), "store", 2),
    Fault("a worker's disk is full", partial(_fill, "scratch 1"), "scratch", 2),
    Fault("the store is away", partial(_store_away, empty=False), "store", 2),
    Fault("an empty folder is in the store's place", partial(_store_away, empty=True), "store", 2),
    Fault("a clock jumps", _clock_jumps, "clocks"),
    *(Fault(f"a crash {point}", partial(_crash_at, point), point) for point in POINTS),
)
