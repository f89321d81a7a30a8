"""Replays what a team posts through the real queue in PostgreSQL: every claim, preemption and sweep is the service's own.

Only the training is made up: a job that starts ends after its time, on a clock that jumps from one event to the next. Measured
steps tell the queue of that end with an error, as a trainer's do.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from benchmarks.made_up_team import Person, Posted
from service import jobs, scheduling
from service.database import Database
from service.jobs import Fence, transitions
from service.queue_policy import QueuePolicy
from service.scheduling import Device, Offer, claim
from service.spec import JobSpec, parse_spec
from service.tables import User, Worker

LEASE_SECONDS = 365 * 86_400.0
STOP_SECONDS = 30.0
SPEC = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 8}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
}
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass
class Run:
    """What became of a posted job."""

    posted: Posted
    started_at: float | None = None
    """Of its first attempt."""
    ended_at: float | None = None
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When it held its devices."""

    @property
    def wait(self) -> float:
        assert self.started_at is not None
        return self.started_at - self.posted.at


@dataclass
class _Running:
    run: Run
    worker_id: str
    devices: tuple[str, ...]
    since: float
    stopping: bool = False


class Cluster:
    """Hosts of an empty database, and the time."""

    def __init__(
        self, url: str, hosts: Sequence[int], people: Sequence[Person], *, queue_policy: QueuePolicy, sweep_seconds: float = 600.0
    ):
        """``hosts`` are GPUs by host."""
        self.seconds = 0.0
        self.database = Database(url, clock=self.now, queue_policy=queue_policy)
        self.runs: dict[str, Run] = {}
        self.running: dict[Fence, _Running] = {}
        self.hosts = {f"worker_{number:02}": tuple(f"cuda:{n}" for n in range(gpus)) for number, gpus in enumerate(hosts)}
        self.preemptions = 0
        self._sweep_seconds = sweep_seconds
        self._draw = random.Random(0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        with self.database.transaction() as session:
            session.add_all(User(id=f"user_{p.name}", name=p.name, share_weight=p.weight) for p in people)
            for worker_id, names in self.hosts.items():
                devices = [{"name": name, "kind": "cuda", "memory_gib": 80.0} for name in names]
                session.add(
                    Worker(
                        id=worker_id,
                        host=worker_id.replace("worker", "host"),
                        pid=1,
                        pool="default",
                        slots=len(names),
                        devices=devices,
                        started_at=BEGIN,
                        heartbeat_at=BEGIN,
                    )
                )

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    def replay(self, posted: Sequence[Posted], *, at_moment: Callable[[], None] = lambda: None) -> list[Run]:
        """Until all has ended; ``at_moment`` is called after each event, before hosts ask for jobs."""
        for post in posted:
            self._plan(post.at, lambda post=post: self._post(post))  # type: ignore[misc]
        self._plan(0.0, self._sweep)
        while self._events:
            self.seconds, _, happen = heapq.heappop(self._events)
            happen()
            at_moment()
            self.claim_all()
        assert all(run.ended_at is not None for run in self.runs.values())
        return list(self.runs.values())

    def free(self, worker_id: str) -> list[str]:
        held = {name for each in self.running.values() if each.worker_id == worker_id for name in each.devices}
        return [name for name in self.hosts[worker_id] if name not in held]

    def offer(self, worker_id: str) -> Offer:
        return Offer(worker_id, "default", tuple(Device(name, 80.0) for name in self.free(worker_id)))

    def claim_all(self) -> None:
        """Every host with a free device asks until nothing fits."""
        for worker_id in self.hosts:
            while self.free(worker_id) and self._claim(worker_id):
                pass

    def _claim(self, worker_id: str) -> bool:
        with self.database.transaction() as session:
            found = claim(session, self.offer(worker_id), lease_seconds=LEASE_SECONDS)
            if found is None:
                return False
            run, done = self.runs[found.job.id], found.job.run_seconds
            left = max(1.0, run.posted.seconds - done)
            measured = self._draw.lognormvariate(0.0, 0.1) * left
            jobs.record_progress(session, found.fence, {"phase": "student"}, remaining_seconds=measured)
        if run.started_at is None:
            run.started_at = self.seconds
        self.running[found.fence] = _Running(run, worker_id, found.devices, self.seconds)
        self._plan(self.seconds + left, lambda: self._end(found.fence))
        return True

    def _post(self, post: Posted) -> None:
        with self.database.transaction() as session:
            job = jobs.submit(
                session,
                owner_id=f"user_{post.person.name}",
                spec=_spec(post.priority, post.gpus, int(post.max_seconds)),
                preflight=False,
            )
        self.runs[job.id] = Run(post)
        if post.priority == "high":
            self._preempt_for_urgent()

    def _end(self, fence: Fence) -> None:
        held = self.running.get(fence)
        if held is None or held.stopping:
            return
        with self.database.transaction() as session:
            transitions.succeed(session, jobs.get(session, fence.job_id, lock=True))
        self._let_go(fence)
        held.run.ended_at = self.seconds

    def _stop(self, fence: Fence) -> None:
        held = self.running[fence]
        with self.database.transaction() as session:
            jobs.settle_stopped(session, fence, reason="preempt")
        self._let_go(fence)
        self.preemptions += 1
        assert held.stopping

    def _let_go(self, fence: Fence) -> None:
        held = self.running.pop(fence)
        held.run.spans.append((held.since, self.seconds))

    def _sweep(self) -> None:
        """As every process does on its timer, and each running job's heartbeat with it."""
        with self.database.transaction() as session:
            for fence in self.running:
                jobs.renew_lease(session, fence, lease_seconds=LEASE_SECONDS)
        with self.database.transaction() as session:
            scheduling.sweep(session, lease_seconds=LEASE_SECONDS)
        self._preempt_for_urgent()
        with self.database.transaction() as session:
            scheduling.move_reservations(session, "default", lease_seconds=LEASE_SECONDS)
        if self._events:
            self._plan(self.seconds + self._sweep_seconds, self._sweep)

    def _preempt_for_urgent(self) -> None:
        with self.database.transaction() as session:
            asked = scheduling.preempt(session, "default", lease_seconds=LEASE_SECONDS)
        for fence, held in self.running.items():
            if fence.job_id in asked and not held.stopping:
                held.stopping = True
                self._plan(self.seconds + STOP_SECONDS, lambda fence=fence: self._stop(fence))  # type: ignore[misc]

    def _plan(self, at: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, happen))


def first_in_first_out(posted: Sequence[Posted]) -> list[Posted]:
    """As if one person had posted all, at one priority: then the queue is by age alone, packed and kept as before."""
    return [replace(post, person=EVERYBODY, priority="normal") for post in posted]


def by_priority(posted: Sequence[Posted]) -> list[Posted]:
    """As if one person had posted all: then it is by priority and age."""
    return [replace(post, person=EVERYBODY) for post in posted]


EVERYBODY = Person("everybody", "all", 1.0)
_specs: dict[tuple[str, int, int], JobSpec] = {}


def _spec(priority: str, gpus: int, max_seconds: int) -> JobSpec:
    key = (priority, gpus, max_seconds)
    if key not in _specs:
        resources = {"gpus": gpus, "max_runtime_seconds": max_seconds}
        _specs[key] = parse_spec(SPEC | {"priority": priority, "resources": resources})
    return _specs[key]
