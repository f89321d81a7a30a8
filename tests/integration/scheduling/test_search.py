"""A search for a sequence of events that breaks what the queue promises: jobs, simulated workers, a clock that the search sets.

Every step is a real transaction on PostgreSQL. A worker here knows what a real one does, the attempts that it was given, so one
that was frozen comes back with attempts that are over, and tries to write.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import jobs, scheduling
from service.errors import CircularDependency, Conflict, InvalidSpec, InvalidTransition, QueueLimitReached
from service.ids import new_id
from service.jobs import Fence
from service.lifecycle import FINAL, UNSTARTED, Outcome, Status, may_move
from service.queue_policy import QueuePolicy
from service.tables import Job, JobEvent, Model, Usage, UsageHour, Worker
from tests.integration.conftest import empty
from tests.integration.jobs.conftest import FAILURE
from tests.integration.scheduling.cluster import HOUR, Cluster, Machine
from tests.integration.scheduling.oracle import LEASE_SECONDS

HOSTS: dict[str, dict[str, int]] = {"alpha": {"gpus": 2, "slots": 1}, "beta": {"gpus": 1, "slots": 2}}
LIMITS: dict[str, Any] = {
    "ana": {"max_running": None, "max_queued": None},
    "bo": {"max_running": 1, "max_queued": 3},
}
ENDLESS = QueuePolicy(usage_half_life_seconds=1e12, promote_after_seconds=2 * HOUR, reserve_after_seconds=300)
"""Usage does not decay, so that charges add up to the last second."""
SWEEP_SECONDS = 5.0
OWNERS = st.sampled_from(sorted(LIMITS))
PRIORITIES = st.sampled_from(["normal", "normal", "low", "high"])
NEEDS = ({"gpus": 1}, {"gpus": 2}, {"gpus": 0, "cpu_slots": 1}, {"gpus": 0, "cpu_slots": 2})


@dataclass
class Account:
    """What a job ran, by the search's own clock."""

    owner: str
    gpus: int
    cpu_slots: int
    attempt: int = 0
    began: datetime | None = None
    seconds: float = 0.0
    crashes: int = 0
    """Ends of its trainer that are its own doing."""

    @property
    def rate(self) -> float:
        return ENDLESS.rate(self.gpus, self.cpu_slots)


def is_busy(queue: "Queue") -> bool:
    """Whether some worker believes that it runs a job."""
    return any(queue.machine(host).running for host in HOSTS)


class Queue(RuleBasedStateMachine):
    """What people, workers and the sweep do, in any order."""

    url: ClassVar[str]
    known = Bundle("known")
    hosts = st.sampled_from(sorted(HOSTS))

    @initialize(
        target=known,
        posted=st.lists(st.tuples(OWNERS, st.sampled_from(NEEDS), PRIORITIES), min_size=4, max_size=8),
        start=st.booleans(),
    )
    def open(self, posted: list[tuple[str, dict[str, Any], str]], start: bool) -> object:
        """A team whose jobs wait or run."""
        self.cluster = Cluster(self.url, ENDLESS)
        empty(self.cluster.database)
        for name, limits in LIMITS.items():
            self.cluster.user(name, **limits)
        self.hosts_now: dict[str, str] = {}
        self.restarts = 0
        for host in HOSTS:
            self._start(host)
        self.wakes: Counter[str] = Counter()
        self.accounts: dict[str, Account] = {}
        self.statuses: dict[str, Status] = {}
        self.deleted: list[Account] = []
        found = [self._submit(owner, need, priority) for owner, need, priority in posted]
        self.wakes["default"] = len(posted)
        if start:
            self.cluster.fill()
        return multiple(*[job_id for job_id in found if job_id is not None])

    def teardown(self) -> None:
        if hasattr(self, "cluster"):
            with closing(self.cluster.database):
                self.settle_down()
                self._check_stories()

    # ------------------------------------------------------------ people

    @rule(target=known, owner=OWNERS, need=st.sampled_from(NEEDS), priority=PRIORITIES, wakes=st.integers(0, 2))
    def submit(self, owner: str, need: dict[str, Any], priority: str, wakes: int) -> object:
        """``wakes``: the wake-up is lost, sent or doubled."""
        self.wakes["default"] += wakes
        job_id = self._submit(owner, need, priority)
        return multiple() if job_id is None else job_id

    @rule(target=known, owner=OWNERS, need=st.sampled_from(NEEDS), needs=known)
    def submit_behind(self, owner: str, need: dict[str, Any], needs: str) -> object:
        """A job that needs another one, which may have ended or be gone."""
        try:
            job_id = self._submit(owner, need, "normal", depends_on=[needs])
        except InvalidSpec:
            assert self.statuses.get(needs) in {None, Status.FAILED, Status.CANCELLED}
            return multiple()
        return multiple() if job_id is None else job_id

    @rule(job_id=known)
    def cancel(self, job_id: str) -> None:
        self._request(job_id, self.cluster.cancel)

    @rule(job_id=known)
    def pause(self, job_id: str) -> None:
        self._request(job_id, self.cluster.pause)

    @rule(job_id=known)
    def resume(self, job_id: str) -> None:
        self._request(job_id, self.cluster.resume)

    @rule(job_id=known, name=st.sampled_from(["", "a name"]), priority=st.none() | st.sampled_from(["low", "normal", "high"]))
    def edit(self, job_id: str, name: str, priority: str | None) -> None:
        changes = {"name": name} | ({"priority": priority} if priority else {})
        self._request(job_id, lambda job_id: self.cluster.edit(job_id, **changes))

    @rule(job_id=known, needs=known)
    def depend(self, job_id: str, needs: str) -> None:
        self._request(job_id, lambda job_id: self.cluster.edit(job_id, depends_on=[needs]))

    @rule(job_id=consumes(known))
    def delete(self, job_id: str) -> None:
        if job_id not in self.statuses:
            return
        try:
            self.cluster.do(jobs.remove, job_id)
        except Conflict:
            return
        assert self.statuses.pop(job_id) in FINAL
        self.deleted.append(self.accounts.pop(job_id))

    # ------------------------------------------------------------ workers

    @precondition(lambda self: self.wakes["default"])
    @rule(host=hosts)
    def claim(self, host: str) -> None:
        """A worker that was woken claims once; the wake-up is used up."""
        machine = self.machine(host)
        if machine.beats:
            self.wakes["default"] -= 1
            self.cluster.claim(machine.id)

    @rule(seconds=st.sampled_from([1, 20, 400, 3 * HOUR]))
    def heartbeat(self, seconds: float) -> None:
        """Time passes, in terms that are shorter than a lease, and those who live renew theirs."""
        while seconds > 0:
            step = min(seconds, LEASE_SECONDS / 2) if seconds <= LEASE_SECONDS * 10 else seconds
            self.cluster.forward(step)
            seconds -= step

    @precondition(is_busy)
    @rule(host=hosts)
    def finish(self, host: str) -> None:
        self._write(host, self._succeed)

    @precondition(is_busy)
    @rule(host=hosts)
    def fail(self, host: str) -> None:
        self._write(host, lambda session, fence: jobs.fail(session, fence, FAILURE))

    @precondition(is_busy)
    @rule(host=hosts)
    def crash_of_the_trainer(self, host: str) -> None:
        if (fence := self._write(host, lambda session, fence: jobs.crash(session, fence, FAILURE))) is not None:
            self.accounts[fence.job_id].crashes += 1

    @precondition(is_busy)
    @rule(host=hosts, reason=st.sampled_from(["preempt", "drain"]))
    def stop(self, host: str, reason: str) -> None:
        self._write(host, lambda session, fence: jobs.settle_stopped(session, fence, reason=reason))

    @rule(host=hosts)
    def crash_of_the_worker(self, host: str) -> None:
        """It is gone without a word, and another one starts on its host."""
        self.machine(host).beats = False
        self.machine(host).running.clear()
        self._start(host)

    @rule(host=hosts)
    def freeze(self, host: str) -> None:
        self.machine(host).beats = False

    @rule(host=hosts)
    def thaw(self, host: str) -> None:
        self.machine(host).beats = True

    # ------------------------------------------------------------ the sweep

    @rule()
    def sweep(self) -> None:
        timing = {"every_seconds": SWEEP_SECONDS, "lease_seconds": LEASE_SECONDS}
        if not self.cluster.do(lambda session: scheduling.claim_sweep(session, **timing)):
            return
        self.cluster.sweep()
        due = self.cluster.do(lambda session: scheduling.wakes_due(session, lease_seconds=LEASE_SECONDS))
        for pool, count in due.items():
            self.wakes[pool] = self.wakes[pool] or count

    @precondition(lambda self: self.accounts)
    @rule()
    def settle_down(self) -> None:
        """Everything that is due happens: then nothing waits that could run."""
        for host in HOSTS:
            self.machine(host).beats = True
        for _ in range(4):  # the first may give every lease a new term, the last takes the jobs of workers that are gone
            self.cluster.forward(LEASE_SECONDS / 2 - 1)
            self.sweep()
            self.what_always_holds()
        self.cluster.fill()
        self.what_always_holds()
        self.cluster.check()
        starting = [id_ for id_, place in self.cluster.queue_status().places.items() if place.blocker.reason == "starting"]
        assert not starting, "every device that could run them was offered"

    # ------------------------------------------------------------ what always holds

    @invariant()
    def what_always_holds(self) -> None:
        self.cluster.do(self._look)
        self._attempts_rise_and_ends_stay()
        self._no_device_has_two_jobs()
        self._limits_hold()
        self._nothing_is_charged_twice_or_forgotten()

    def _look(self, session: Session) -> None:
        self.rows = {job.id: job for job in session.scalars(select(Job))}
        self.running = [job for job in self.rows.values() if job.status == Status.RUNNING]
        self.devices = {worker.id: {device["name"] for device in worker.devices} for worker in session.scalars(select(Worker))}
        hours = select(UsageHour.user_id, func.sum(UsageHour.gpu_seconds), func.sum(UsageHour.cpu_slot_seconds))
        accounts = {user: (gpus, slots) for user, gpus, slots in session.execute(hours.group_by(UsageHour.user_id))}
        amounts = {row.user_id: row.amount for row in session.scalars(select(Usage))}
        self.used = {user: (amounts.get(user, 0.0), *accounts.get(user, (0.0, 0.0))) for user in map("user_{}".format, LIMITS)}

    def _attempts_rise_and_ends_stay(self) -> None:
        assert set(self.rows) == set(self.accounts), "no job is lost, and none is there that nobody submitted"
        for job_id, job in self.rows.items():
            account, before = self.accounts[job_id], self.statuses[job_id]
            assert before not in FINAL or job.status == before
            assert 0 <= job.attempt - account.attempt <= 1
            runs = job.status == Status.RUNNING
            if account.began is not None and not (runs and job.attempt == account.attempt):
                account.seconds += (self.cluster.now - account.began).total_seconds()
                account.began = None
            if runs and account.began is None:
                assert job.attempt == account.attempt + 1
                account.began = self.cluster.now
            account.attempt = job.attempt
            assert job.crashes == account.crashes <= job.max_attempts
            self.statuses[job_id] = Status(job.status)

    def _no_device_has_two_jobs(self) -> None:
        held = [(str(job.worker_id), name) for job in self.running for name in job.devices or []]
        assert len(held) == len(set(held))
        assert all(name in self.devices[worker] for worker, name in held)
        assert all(len(job.devices or []) == (job.gpus or job.cpu_slots) for job in self.running)

    def _limits_hold(self) -> None:
        running = Counter(self.accounts[job.id].owner for job in self.running)
        assert all(limit["max_running"] is None or running[name] <= limit["max_running"] for name, limit in LIMITS.items())

    def _nothing_is_charged_twice_or_forgotten(self) -> None:
        for name in LIMITS:
            ended = [account for account in (*self.accounts.values(), *self.deleted) if account.owner == name]
            now = [(self.accounts[job.id], job) for job in self.running if self.accounts[job.id].owner == name]
            charged = sum(a.seconds * a.rate for a in ended) + sum(job.charged_seconds * a.rate for a, job in now)
            gpus = sum(a.seconds * a.gpus for a in ended) + sum(job.accounted_seconds * a.gpus for a, job in now)
            slots = sum(a.seconds * a.cpu_slots for a in ended if not a.gpus)
            slots += sum(job.accounted_seconds * a.cpu_slots for a, job in now if not a.gpus)
            assert self.used[f"user_{name}"] == pytest.approx((charged, gpus, slots), abs=1e-3)

    # ------------------------------------------------------------ how

    def _submit(self, owner: str, need: dict[str, Any], priority: str, **changes: Any) -> str | None:
        """None: the owner has as many jobs in the queue as permitted."""
        limit = LIMITS[owner]["max_queued"]
        waiting = sum(self.statuses[id_] in UNSTARTED for id_, account in self.accounts.items() if account.owner == owner)
        try:
            job_id = self.cluster.submit(owner, priority=priority, **need, **changes)
        except QueueLimitReached:
            assert limit is not None
            assert waiting >= limit
            return None
        assert limit is None or waiting < limit
        self.accounts[job_id] = Account(owner, need["gpus"], need.get("cpu_slots", 1))
        self.statuses[job_id] = Status(self.cluster.job(job_id).status)
        return job_id

    def _start(self, host: str) -> None:
        self.restarts += 1
        name = f"{host}-{self.restarts}"
        self.hosts_now[host] = self.cluster.host(name, **HOSTS[host])  # type: ignore[arg-type]

    def machine(self, host: str) -> Machine:
        return self.cluster.machines[self.hosts_now[host]]

    def _request(self, job_id: str, ask: Callable[[str], object]) -> None:
        """What a person asks of a job that may be deleted, or in any state."""
        if job_id not in self.statuses:
            return
        try:
            ask(job_id)
        except (InvalidTransition, InvalidSpec, CircularDependency, QueueLimitReached):
            return

    def _write(self, host: str, write: Callable[[Session, Fence], Outcome]) -> Fence | None:
        """The end of an attempt that the worker believes its own, frozen or not; returns its fence if it was."""
        machine = next(each for each in (self.machine(host), *map(self.machine, sorted(HOSTS))) if each.running)
        fence, _ = machine.running.pop(min(machine.running))
        row = self.cluster.do(lambda session: session.get(Job, fence.job_id))
        holds = row is not None and (row.status, row.attempt) == (Status.RUNNING, fence.attempt)
        outcome = self.cluster.do(write, fence)
        assert outcome is (Outcome.APPLIED if holds else Outcome.LEASE_LOST)
        return fence if holds else None

    def _succeed(self, session: Session, fence: Fence) -> Outcome:
        owner = f"user_{self.accounts[fence.job_id].owner}" if fence.job_id in self.accounts else "user_ana"
        model = Model(
            id=new_id("model"), owner_id=owner, name="student", task="image-classification",
            job_id=fence.job_id, classes=["0", "1"], input_shape=[1, 8, 8], files=[],
        )  # fmt: skip
        return jobs.succeed(session, fence, result={}, files=[], models=[model])

    def _check_stories(self) -> None:
        """The events of each job tell a legal story, numbered without a gap."""
        for job_id, account in self.accounts.items():
            events: list[JobEvent] = self.cluster.events(job_id)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            told = [Status(name) for event in events if (name := event.type.removeprefix("job.")) in set(Status)]
            assert all(may_move(before, after) for before, after in pairwise(told)), told
            assert told[-1] == self.statuses[job_id]
            assert told.count(Status.RUNNING) == account.attempt
            assert sum(status in FINAL for status in told) <= 1


@pytest.fixture
def search(database_url: str) -> type[Queue]:
    Queue.url = database_url
    return Queue


def _settings(examples: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        phases=[Phase.generate] if derandomize else [Phase.generate, Phase.shrink],
        deadline=None,
        derandomize=derandomize,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def test_no_order_of_events_breaks_a_promise(search: type[Queue]) -> None:
    run_state_machine_as_test(search, settings=_settings(8, derandomize=True))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_no_order_of_very_many_events_breaks_a_promise(search: type[Queue]) -> None:
    run_state_machine_as_test(search, settings=_settings(500, derandomize=False))
