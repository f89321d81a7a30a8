"""Does the queue slow down as its table grows? ``python -m benchmarks.queue_scale``

On a PostgreSQL of its own it loads 1,000, 100,000 and 1,000,000 jobs (a tenth of them queued, by 200 users, on up to 2,000 full
hosts), and times each thing that the service does all day long, in a transaction of its own, commit included. ``--plans`` prints
the database's plans whole; the indexes that they use, and any sequential scan of the jobs, are always printed.

A claim is timed as it comes: a running job of some host ends, untimed, and that host asks for the next until nothing fits.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from benchmarks.large_queue import GPUS, MEMORY_GIB, SPEC, Size, job_id, load, worker_id
from benchmarks.plans import indexes, list_jobs, plans, poll, read_whole
from service import jobs, queries, scheduling, submission, workers
from service.api.responses.jobs import explanation
from service.database import Database, upgrade
from service.embedded.servers import postgres
from service.jobs import Fence
from service.scheduling import Device, Offer, claim
from service.scheduling.explain import explain
from service.scheduling.queue_status_cache import QueueStatusCache
from service.scheduling.snapshot import take_snapshot
from service.security import Caller
from service.settings import Settings
from service.tables import Job

LEASE_SECONDS = 3600.0
SIZES = [
    Size(jobs=1_000, queued=100, users=200, workers=20),
    Size(jobs=100_000, queued=10_000, users=200, workers=2_000),
    Size(jobs=1_000_000, queued=100_000, users=200, workers=2_000),
]
CALLER = Caller("user_1", "user 1", "key_1", "member")
ADMIN = Caller("user_1", "user 1", "key_1", "admin")
HEARTBEAT_SECONDS = 4.0
HEARTBEAT_THREADS = 8


class Bench:
    """One database of one size, and what is done to it."""

    def __init__(self, database: Database, size: Size, *, rounds: int) -> None:
        self.database, self.size, self.rounds = database, size, rounds
        self.random = random.Random(0)
        self.cache = QueueStatusCache(lease_seconds=LEASE_SECONDS, max_age_seconds=1e9)
        self.times: dict[str, list[float]] = {}

    def timed(self, name: str, work: Callable[..., object]) -> object:
        started = time.perf_counter()
        with self.database.transaction() as session:
            found = work(session)
        self.times.setdefault(name, []).append((time.perf_counter() - started) * 1000)
        return found

    def claims(self) -> float:
        """Ends a job on a random host and lets that claim; claims a second while it did."""
        count, spent = 0, 0.0
        while count < self.rounds:
            worker = worker_id(self.random.randrange(self.size.workers))
            self._end_one(worker)
            while True:
                free = self._free(worker)
                offer = Offer(worker, "default", tuple(Device(name, MEMORY_GIB) for name in free))
                if not free:
                    break
                found = self.timed("claim", lambda session, offer=offer: claim(session, offer, lease_seconds=LEASE_SECONDS))
                count, spent = count + 1, spent + self.times["claim"][-1] / 1000
                if found is None:
                    break
        return count / spent

    def readers(self) -> None:
        """Lists, polls, explanations and the queue, as HTTP asks for them."""
        last = self.size.jobs
        wanted = {
            "list, first page": (queries.JobFilter(), None),
            "list, deep": (queries.JobFilter(), job_id(last // 2)),
            "list, by owner": (queries.JobFilter(owner_id="user_7"), None),
            "list, running": (queries.JobFilter(statuses=("running",)), None),
            "list, failed or cancelled, deep": (queries.JobFilter(statuses=("failed", "cancelled")), job_id(last // 2)),
            "list, by a common label": (queries.JobFilter(labels=(("project", "p7"),)), None),
            "list, by a rare label": (queries.JobFilter(labels=(("run", str(last // 3)),)), None),
            "list, owner's queued by label": (
                queries.JobFilter(statuses=("queued",), owner_id="user_7", labels=(("project", "p7"),)),
                None,
            ),
        }
        self.timed("queue status, computed anew", lambda session: self.cache.of(session, "default"))
        for _ in range(self.rounds):
            for name, (filter_, after) in wanted.items():
                self.timed(
                    name,
                    lambda session, f=filter_, a=after: list_jobs(session, f, after=a),
                )
            drawn = job_id(self.random.randrange(1, last + 1))
            self.timed("poll", lambda session, drawn=drawn: poll(session, drawn))
            queued = job_id(last - self.random.randrange(self.size.queued // 2))
            self.timed("explain", lambda session, queued=queued: self._explain(session, queued))
        for _ in range(self.rounds // 10):
            self.timed("GET /v1/queue", lambda session: queries.queue(session, self.cache, pool="default"))
        for _ in range(3):
            self.timed("queue status, computed anew", lambda session: explain(session, "default", lease_seconds=LEASE_SECONDS))

    def writers(self) -> None:
        """Submissions, heartbeats of jobs and workers, sweeps."""
        settings = Settings(preflight=False, pools=["default"])
        for _ in range(self.rounds // 2):
            started = time.perf_counter()
            submission.submit(self.database, settings, CALLER, SPEC | {"resources": {"gpus": 1}})
            self.times.setdefault("submit", []).append((time.perf_counter() - started) * 1000)
        with self.database.transaction() as session:
            running = list(session.execute(select(Job.id, Job.attempt).where(Job.status == "running").limit(self.rounds)))
        for id_, attempt in running:
            fence = Fence(id_, attempt)
            self.timed("heartbeat of a job", lambda session, f=fence: jobs.renew_lease(session, f, lease_seconds=LEASE_SECONDS))
        for number in range(self.rounds):
            worker = worker_id(number % self.size.workers)
            self.timed("heartbeat of a worker", lambda session, worker=worker: workers.beat(session, worker, ending=False))
        for _ in range(self.rounds // 10):
            self.timed("sweep", lambda session: scheduling.sweep(session, lease_seconds=LEASE_SECONDS))
            self.timed("sweep: checkpoints", jobs.spent_checkpoints)
            self.timed("sweep: wake-ups", lambda session: scheduling.wakes_due(session, lease_seconds=LEASE_SECONDS))
            submission.submit(self.database, settings, ADMIN, SPEC | {"priority": "high", "resources": {"gpus": 1}})
            for name, act in (("preemption", scheduling.preempt), ("reservations", scheduling.move_reservations)):
                self.timed(f"sweep: {name}", lambda session, act=act: act(session, "default", lease_seconds=LEASE_SECONDS))

    def heartbeats_a_second(self) -> float:
        """All hosts beat at once, by a few threads: how many the database takes."""
        end, counts = time.perf_counter() + HEARTBEAT_SECONDS, [0] * HEARTBEAT_THREADS

        def beat(thread: int) -> None:
            while time.perf_counter() < end:
                worker = worker_id((counts[thread] * HEARTBEAT_THREADS + thread) % self.size.workers)
                with self.database.transaction() as session:
                    workers.beat(session, worker, ending=False)
                counts[thread] += 1

        threads = [threading.Thread(target=beat, args=(thread,)) for thread in range(HEARTBEAT_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / HEARTBEAT_SECONDS

    def _end_one(self, worker: str) -> None:
        with self.database.transaction() as session:
            ended = session.scalar(select(Job.id).where(Job.status == "running", Job.worker_id == worker).limit(1))
            values = {"status": "succeeded", "lease_expires_at": None, "devices": None, "finished_at": func.now()}
            session.execute(update(Job).where(Job.id == ended).values(**values))

    def _free(self, worker: str) -> list[str]:
        with self.database.transaction() as session:
            query = select(Job.devices).where(Job.status == "running", Job.worker_id == worker)
            held = {name for devices in session.scalars(query) for name in devices or ()}
        return [name for name in (f"cuda:{number}" for number in range(GPUS)) if name not in held]

    def _explain(self, session: Session, queued: str) -> None:
        row = queries.job_row(session, queued, self.cache)
        explanation(session, row, self.cache)

    # ---------------------------------------------------------------- plans

    def plans(self) -> dict[str, list[str]]:
        """Each thing's statements as PostgreSQL would run them."""
        last, worker = self.size.jobs, worker_id(0)
        self._end_one(worker)
        offer = Offer(worker, "default", tuple(Device(name, MEMORY_GIB) for name in self._free(worker)))
        things: dict[str, Callable[..., object]] = {
            "claim": lambda session: claim(session, offer, lease_seconds=LEASE_SECONDS),
            "list, first page": lambda session: list_jobs(session, queries.JobFilter()),
            "list, failed, deep": lambda session: list_jobs(
                session, queries.JobFilter(statuses=("failed", "cancelled")), after=job_id(last // 2)
            ),
            "list, by a label": lambda session: list_jobs(session, queries.JobFilter(labels=(("run", "77"),))),
            "poll": lambda session: poll(session, job_id(last // 2)),
            "sweep": lambda session: scheduling.sweep(session, lease_seconds=LEASE_SECONDS),
            "sweep: checkpoints": jobs.spent_checkpoints,
            "sweep: wake-ups": lambda session: scheduling.wakes_due(session, lease_seconds=LEASE_SECONDS),
            "queue": lambda session: take_snapshot(session, "default", lease_seconds=LEASE_SECONDS, depth=5).find_hosts(),
        }
        return {name: plans(self.database, work) for name, work in things.items()}


def summary(found: list[str]) -> str:
    """The indexes that plans use, and what they read from end to end."""
    whole = read_whole(found)
    return ", ".join(indexes(found)) + (f"; reads the whole of {', '.join(whole)}" if whole else "")


def run(url: str, size: Size, *, rounds: int, whole_plans: bool) -> tuple[Bench, dict[str, str]]:
    upgrade(url)
    with closing(Database(url, pool_size=HEARTBEAT_THREADS, answer_seconds=3600)) as database:
        started = time.perf_counter()
        load(database, size)
        loaded = time.perf_counter()
        with database.transaction() as session:
            flows = len(take_snapshot(session, "default", lease_seconds=LEASE_SECONDS).flows)
        bench = Bench(database, size, rounds=rounds)
        bench.readers()
        rates = {"claims a second": f"{bench.claims():,.0f}"}
        bench.writers()
        rates["heartbeats a second"] = f"{bench.heartbeats_a_second():,.0f}"
        print(
            f"\n{size.jobs:,} jobs, {size.queued:,} queued by {size.users} users in {flows:,} flows, {size.running:,} running on "
            f"{size.workers:,} hosts: loaded in {loaded - started:.0f} s, measured in {time.perf_counter() - loaded:.0f} s"
        )
        for name, found in bench.plans().items():
            print(f"  {name:22} {summary(found)}")
            if whole_plans:
                print("\n\n".join(found) + "\n")
    return bench, rates | {"flows": f"{flows:,}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--largest", type=int, default=1_000_000, help="leaves out the sizes above it")
    parser.add_argument("--plans", action="store_true", help="prints every plan whole")
    options = parser.parse_args()
    sizes = [size for size in SIZES if size.jobs <= options.largest]
    results = []
    with tempfile.TemporaryDirectory(prefix="stillhouse-scale-") as folder, postgres(Path(folder)) as server:
        for size in sizes:
            with closing(Database(server.url)) as admin, admin.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"CREATE DATABASE jobs_{size.jobs}"))
            url = server.url.replace("/postgres?", f"/jobs_{size.jobs}?")
            results.append(run(url, size, rounds=options.rounds, whole_plans=options.plans))
    print(f"\n{'p50 / p99, ms':34}" + "".join(f"{size.jobs:>20,}" for size in sizes))
    for name in results[-1][0].times:
        cells = [bench.times[name] for bench, _ in results]
        print(f"{name:34}" + "".join(f"{statistics.median(cell):>11.1f} /{_p99(cell):>7.1f}" for cell in cells))
    for name in results[-1][1]:
        print(f"{name:34}" + "".join(f"{rates[name]:>20}" for _, rates in results))


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


if __name__ == "__main__":
    main()
