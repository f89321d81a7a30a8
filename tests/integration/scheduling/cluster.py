"""A simulated team and cluster: real rows, real claims by workers without trainers, and a clock that tests set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service import jobs, scheduling, workers
from service.database import Database
from service.ids import new_id
from service.jobs import Fence
from service.lifecycle import Outcome
from service.queue_policy import QueuePolicy
from service.scheduling import Claim, Device, Offer, claim
from service.scheduling.explain import Place, QueueStatus, explain
from service.spec import parse_spec
from service.tables import Job, JobEvent, Model, User
from tests.integration.jobs.conftest import FAILURE, SPEC
from tests.integration.scheduling.oracle import LEASE_SECONDS, check

T = TypeVar("T")
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
HOUR = 3600


@dataclass
class Machine:
    """A worker: its devices, and the jobs that run on them."""

    id: str
    pool: str
    devices: tuple[Device, ...]
    beats: bool = True
    running: dict[str, tuple[Fence, tuple[str, ...]]] = field(default_factory=dict)
    """By job: its attempt and the names of its devices."""

    @property
    def free(self) -> tuple[Device, ...]:
        taken = {name for _, names in self.running.values() for name in names}
        return tuple(device for device in self.devices if device.name not in taken)


class Cluster:
    """Methods named for events: hosts start, people post jobs, workers claim them, time passes."""

    def __init__(self, url: str, queue_policy: QueuePolicy | None = None) -> None:
        self.now = START
        self.database = Database(url, clock=lambda: self.now, queue_policy=queue_policy)
        self.machines: dict[str, Machine] = {}
        self._users: set[str] = set()

    # ------------------------------------------------------------ people

    def user(self, name: str, *, weight: float = 1.0, max_running: int | None = None, max_queued: int | None = None) -> None:
        """Adds a user, or changes a user's weight and limits."""
        values = {"share_weight": weight, "max_running_jobs": max_running, "max_queued_jobs": max_queued}
        if name in self._users:
            self.do(lambda session: session.execute(update(User).where(User.name == name).values(**values)))
        else:
            self._users.add(name)
            self.do(lambda session: session.add(User(id=f"user_{name}", name=name, **values)))

    def submit(self, owner: str = "ana", *, preflight: bool = False, **changes: Any) -> str:
        """Posts a job; keys of its resources may be given at the top level."""
        if owner not in self._users:
            self.user(owner)
        names = ("gpus", "cpu_slots", "min_gpu_memory_gib", "max_runtime_seconds", "pool")
        resources = {name: changes.pop(name) for name in names if name in changes}
        spec = parse_spec({**SPEC, "resources": resources, **changes})
        return self.do(lambda session: jobs.submit(session, owner_id=f"user_{owner}", spec=spec, preflight=preflight).id)

    def submit_many(self, count: int, owner: str = "ana", **changes: Any) -> list[str]:
        return [self.submit(owner, **changes) for _ in range(count)]

    def cancel(self, job_id: str) -> Outcome:
        return self.do(lambda session: jobs.request_cancel(session, job_id, keep="best"))[1]

    def pause(self, job_id: str) -> Outcome:
        return self.do(jobs.request_pause, job_id)[1]

    def resume(self, job_id: str) -> Outcome:
        return self.do(jobs.resume, job_id)[1]

    def edit(self, job_id: str, **changes: Any) -> Job:
        return self.do(lambda session: jobs.edit(session, job_id, **changes))

    # ------------------------------------------------------------ workers

    def host(
        self, name: str, *, gpus: int = 0, memory: float | Sequence[float] | None = 80.0, slots: int = 0, pool: str = "default"
    ) -> str:
        """A worker starts on a host of that name; its id is the host's name."""
        sizes = list(memory) if isinstance(memory, Sequence) else [memory] * gpus
        devices = [Device(f"cuda:{index}", sizes[index]) for index in range(gpus)] + [Device(f"cpu:{i}") for i in range(slots)]
        self.machines[name] = Machine(name, pool, tuple(devices))
        rows = [
            {"name": device.name, "kind": device.name.partition(":")[0], "memory_gib": device.memory_gib} for device in devices
        ]
        self.do(lambda session: workers.register(session, name, host=name, pid=1, pool=pool, devices=rows))
        return name

    def claim(self, host: str) -> str | None:
        """The worker claims a job for its free devices."""
        machine = self.machines[host]
        found = self.do(self.claim_in, machine)
        if found is None:
            return None
        machine.running[found.job.id] = (found.fence, found.devices)
        return found.job.id

    def claim_in(self, session: Session, machine: Machine) -> Claim | None:
        return claim(session, Offer(machine.id, machine.pool, machine.free), lease_seconds=LEASE_SECONDS)

    def fill(self, *hosts: str) -> list[str]:
        """All workers, or these, claim until nothing fits; returns the jobs that started, in order."""
        started = []
        for host in hosts or sorted(name for name, machine in self.machines.items() if machine.beats):
            while (job_id := self.claim(host)) is not None:
                started.append(job_id)
        return started

    def succeed(self, job_id: str) -> None:
        model = Model(
            id=new_id("model"), owner_id=self.job(job_id).owner_id, name="student", task="image-classification",
            job_id=job_id, classes=["0", "1"], input_shape=[1, 8, 8], files=[],
        )  # fmt: skip
        self.settle(job_id, lambda session, fence: jobs.succeed(session, fence, result={}, files=[], models=[model]))

    def fail(self, job_id: str) -> None:
        self.settle(job_id, lambda session, fence: jobs.fail(session, fence, FAILURE))

    def crash(self, job_id: str) -> None:
        self.settle(job_id, lambda session, fence: jobs.crash(session, fence, FAILURE))

    def stop(self, job_id: str, reason: str = "preempt") -> None:
        """The trainer wrote its checkpoint and ended, as requested."""
        self.settle(job_id, lambda session, fence: jobs.settle_stopped(session, fence, reason=reason))

    def settle(self, job_id: str, write: Callable[[Session, Fence], Outcome]) -> None:
        machine, fence = self.on(job_id)
        assert self.do(write, fence) is Outcome.APPLIED
        del machine.running[job_id]

    def on(self, job_id: str) -> tuple[Machine, Fence]:
        """The machine that a job runs on, and its attempt."""
        return next((m, m.running[job_id][0]) for m in self.machines.values() if job_id in m.running)

    def report_remaining(self, job_id: str, *, remaining_seconds: float) -> None:
        """The trainer reports how long it still takes."""
        _, fence = self.on(job_id)
        progress = {"phase": "student", "step": 7}
        self.do(lambda session: jobs.record_progress(session, fence, progress, remaining_seconds=remaining_seconds))

    def drain(self, host: str, *, finish: bool = False) -> None:
        self.do(lambda session: workers.drain(session, host, finish=finish))

    def undrain(self, host: str) -> None:
        self.do(workers.undrain, host)

    def end(self, host: str) -> None:
        """The worker ends regularly."""
        self.machines[host].beats = False
        self.do(workers.deregister, host)

    # ------------------------------------------------------------ time

    def forward(self, seconds: float) -> None:
        """Lets time pass; workers send a heartbeat at its end."""
        self.now += timedelta(seconds=seconds)
        self.do(self._beat)

    def _beat(self, session: Session) -> None:
        for machine in self.machines.values():
            if machine.beats:
                workers.beat(session, machine.id, ending=False)
                for fence, _ in list(machine.running.values()):
                    if jobs.renew_lease(session, fence, lease_seconds=LEASE_SECONDS) is None:
                        del machine.running[fence.job_id]

    def sweep(self) -> list[str]:
        """One sweep of a sweeper; returns the jobs that it preempted."""
        self.do(lambda session: scheduling.sweep(session, lease_seconds=LEASE_SECONDS))
        asked = [
            job_id
            for pool in self.do(scheduling.pools_with_urgent_jobs)
            for job_id in self.do(lambda session, pool=pool: scheduling.preempt(session, pool, lease_seconds=LEASE_SECONDS))
        ]
        for pool in self.do(scheduling.pools_with_reservations):
            self.do(lambda session, pool=pool: scheduling.move_reservations(session, pool, lease_seconds=LEASE_SECONDS))
        return asked

    # ------------------------------------------------------------ observations

    def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs ``work`` in a transaction of its own."""
        with self.database.transaction() as session:
            return work(session, *arguments)

    def job(self, job_id: str) -> Job:
        return self.do(jobs.get, job_id)

    def status(self, *job_ids: str) -> list[str]:
        return [self.job(job_id).status for job_id in job_ids]

    def queued(self, pool: str = "default") -> list[str]:
        query = select(Job.id).where(Job.status == "queued", Job.pool == pool)
        return self.do(lambda session: list(session.scalars(query)))

    def events(self, job_id: str) -> list[JobEvent]:
        query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
        return self.do(lambda session: list(session.scalars(query)))

    def types(self, job_id: str) -> list[str]:
        return [event.type for event in self.events(job_id)]

    def queue_status(self, pool: str = "default") -> QueueStatus:
        return self.do(lambda session: explain(session, pool, lease_seconds=LEASE_SECONDS))

    def place(self, job_id: str) -> Place:
        return self.queue_status(self.job(job_id).pool).places[job_id]

    def used(self, job_id: str) -> float:
        """Decayed usage of the owner of a waiting job, in GPU-seconds."""
        job = self.job(job_id)
        return self.queue_status(job.pool).shares[job.owner_id].used

    def order(self, pool: str = "default") -> list[str]:
        """The waiting jobs in queue order."""
        return list(self.queue_status(pool).places)

    def waits(self, expected: dict[str, tuple[str, str]], pool: str = "default") -> None:
        """Asserts reason and message of each waiting job of the pool, and that all of them are right by trial."""
        told = {job_id: (place.blocker.reason, place.blocker.message) for job_id, place in self.queue_status(pool).places.items()}
        assert told == expected
        self.check()

    def check(self) -> None:
        """Asserts that every explanation is right: see ``oracle``."""
        check(self)
