"""What the API tells of a pool's queue: each waiting job's place, the one thing that blocks it, and when it should start.

All of it comes from the same rules as the claim: what could start at this moment is placed in thought, and what is left over is
asked what it lacks. Places count the turns as they would come, each start charged to its owner as a claim would: what starts at
this moment has its place by the picture before these starts, and what waits on by the picture after them.
"""

import heapq
import threading
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.lifecycle import Priority, Status
from service.scheduling.forecast import HORIZON, Start, history, starts
from service.scheduling.hosts import Host, Need
from service.scheduling.policy import Lane, Placement, Pool, Reservation, Share, Waiting
from service.scheduling.snapshot import look, need_of
from service.tables import Job, JobDependency

MAX_PLACES = 1000
"""Jobs of a pool whose place is counted: of those behind it is told that they are behind."""
_DEPTH = 5
_NAMED = 10
"""Jobs that a blocker names, at most."""
_AGE_BY_MAKING = 10.0
"""An outlook that takes a second to make may be so many times as old as others: making them takes a small part of the time."""

Cause = Literal[
    "starting", "no_worker", "no_suitable_worker", "draining", "user_limit", "jobs_ahead", "devices", "preempting", "kept_host"
]


@dataclass(frozen=True)
class Blocker:
    """The one thing that a queued job waits for."""

    cause: Cause
    message: str
    """In words."""
    job_ids: tuple[str, ...] = ()
    """The jobs that hold what it needs, or come before it."""
    worker_id: str | None = None
    """The host that would take it."""
    until: datetime | None = None
    """When that should be over, where that is known."""


@dataclass(frozen=True)
class Place:
    """Where a queued job stands."""

    position: int
    """From 1; ``MAX_PLACES + 1`` for all that are behind."""
    blocker: Blocker
    start: Start | None = None


@dataclass(frozen=True)
class Outlook:
    """A pool's queue at one moment."""

    pool: str
    as_of: datetime
    places: dict[str, Place]
    """By job, in the order of their turns."""
    num_waiting: int
    shares: Mapping[str, Share]
    """Of the users whose jobs wait."""
    hosts: Sequence[Host]
    """Those whose heart beats."""

    def place(self, job: Job) -> Place | None:
        """None for a job that was not queued at that moment."""
        if (found := self.places.get(job.id)) is not None or self.num_waiting < MAX_PLACES:
            return found
        behind = Blocker("jobs_ahead", f"the turn of more than {MAX_PLACES:,} jobs that start earlier")
        blocker = _unserved(self.pool, self.hosts, need_of(job)) or _full(self.shares.get(job.owner_id)) or behind
        return Place(MAX_PLACES + 1, blocker)

    def suitable(self, need: Need) -> list[Host]:
        """Hosts that could hold it, were they free."""
        return [host for host in self.hosts if not host.draining and host.could_hold(need)]


@dataclass
class _Made:
    """The last outlook of a pool."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Whoever holds it makes the next."""
    outlook: Outlook | None = None
    good_until: float = float("-inf")


class Outlooks:
    """Outlooks that many readers share: one is made anew once it is older than ``max_age_seconds``.

    One that takes long to make, of a large queue, is kept for longer. While one reader makes the next, the others get the last.
    """

    def __init__(self, *, lease_seconds: float, max_age_seconds: float) -> None:
        self._lease_seconds, self._max_age_seconds = lease_seconds, max_age_seconds
        self._made: dict[str, _Made] = {}

    def of(self, session: Session, pool: str) -> Outlook:
        """A pool's outlook, seconds old at most."""
        made = self._made.setdefault(pool, _Made())
        outlook = made.outlook
        if outlook is not None and time.monotonic() < made.good_until:
            return outlook
        if outlook is not None and self._max_age_seconds > 0 and made.lock.locked():
            return outlook
        return self._make(session, pool, made, instead_of=outlook)

    def place(self, session: Session, job: Job) -> Place | None:
        """A job's place; of one that came into the queue after the last picture, by a new one. None unless it is queued."""
        if job.status != Status.QUEUED:
            return None
        outlook = self.of(session, job.pool)
        if outlook.place(job) is None:
            outlook = self._make(session, job.pool, self._made[job.pool], instead_of=outlook)
        return outlook.place(job)

    def _make(self, session: Session, pool: str, made: _Made, *, instead_of: Outlook | None) -> Outlook:
        with made.lock:
            if made.outlook is not None and made.outlook is not instead_of:
                return made.outlook  # another reader made it meanwhile
            started = time.monotonic()
            made.outlook = outlook = outlook_of(session, pool, lease_seconds=self._lease_seconds)
            ended = time.monotonic()
            made.good_until = ended + self._max_age_seconds * max(1.0, _AGE_BY_MAKING * (ended - started))
            return outlook


def outlook_of(session: Session, pool: str, *, lease_seconds: float) -> Outlook:
    """What there is to tell of a pool's queue now."""
    picture = look(session, pool, lease_seconds=lease_seconds, depth=_DEPTH)
    ahead, starting = picture.placed()
    turns = _turns(picture, ahead, starting)
    blocked = _Blocked(ahead, starting)
    places: dict[str, Place] = {}
    for position, job in enumerate(turns, start=1):
        places[job.id] = Place(position, blocked.blocker(job))
    first = turns[:HORIZON]
    if first:
        for job_id, start in starts(ahead, starting, first, history(session, pool)).items():
            places[job_id] = replace(places[job_id], start=start)
    num_waiting = len(turns)
    if num_waiting == MAX_PLACES:
        queued = select(func.count()).select_from(Job).where(Job.status == Status.QUEUED, Job.pool == pool)
        num_waiting = session.scalar(queued) or 0
        for placement in starting.values():
            places.setdefault(placement.job.id, Place(MAX_PLACES + 1, blocked.blocker(placement.job)))
    return Outlook(pool, picture.now, places, num_waiting, picture.shares, picture.find_hosts())


def _turns(picture: Pool, ahead: Pool, starting: Container[str]) -> list[Waiting]:
    """The first ``MAX_PLACES`` waiting jobs; ``ahead`` is the picture in which those of ``starting`` have started."""
    waiting = in_turn(ahead, MAX_PLACES)
    return [job if job.id in starting else next(waiting) for job in in_turn(picture, MAX_PLACES, starting=starting)]


def in_turn(pool: Pool, most: int, *, starting: Container[str] = ()) -> Iterator[Waiting]:
    """The first ``most`` waiting jobs in the order of their turns, each start charged to its owner.

    What does not start in this moment is charged against those jobs alone that fit only where it fits too: the others may start
    before it.
    """
    rules, count = pool.rules, 0
    by_class: dict[int, list[Lane]] = {}
    needs: dict[str, set[Need]] = defaultdict(set)
    for lane in pool.lanes.values():
        by_class.setdefault(lane.key[0], []).append(lane)
        needs[lane.owner_id].add(lane.need)
    charged: dict[tuple[str, Need], float] = defaultdict(float)

    def level(lane: Lane) -> float:
        share = pool.shares[lane.owner_id]
        return share.level + charged[lane.owner_id, lane.need] / share.weight

    for _, lanes in sorted(by_class.items()):
        waiting = [(lane, _all(lane)) for lane in lanes]
        heap = [(level(lane), job.turn, index, job) for index, (lane, jobs) in enumerate(waiting) for job in islice(jobs, 1)]
        heapq.heapify(heap)
        while heap:
            known, turn, index, job = heapq.heappop(heap)
            lane, jobs = waiting[index]
            if (risen := level(lane)) > known:
                heapq.heappush(heap, (risen, turn, index, job))
                continue
            yield job
            count += 1
            if count == most:
                return
            amount = rules.entry_seconds * rules.rate(job.need.gpus, job.need.cpu_slots)
            for need in needs[lane.owner_id]:
                if job.id in starting or job.need.fits_wherever(need):
                    charged[lane.owner_id, need] += amount
            following = next(jobs, None)
            if following is not None:
                heapq.heappush(heap, (level(lane), following.turn, index, following))


def open_needs(session: Session, job: Job) -> dict[str, Status]:
    """The unfinished jobs that this one depends on, each with its state."""
    query = (
        select(Job.id, Job.status)
        .join(JobDependency, JobDependency.needs_job_id == Job.id)
        .where(JobDependency.job_id == job.id, Job.status != Status.SUCCEEDED)
        .order_by(Job.id)
    )
    return {job_id: Status(status) for job_id, status in session.execute(query)}


def _all(lane: Lane) -> Iterator[Waiting]:
    """Its jobs, in their turn."""
    index = 0
    while True:
        if index == len(lane.jobs):
            lane.extend(lane)
            if index == len(lane.jobs):
                return
        yield lane.jobs[index]
        index += 1


class _Blocked:
    """Asks each job, in the order of their turns, what it lacks."""

    def __init__(self, ahead: Pool, starting: dict[str, Placement]) -> None:
        self._pool, self._starting = ahead, starting
        self._hosts = {host.worker_id: host for host in ahead.find_hosts()}
        self._keeping = {kept.worker_id for kept in ahead.reservations}
        self._asked: dict[str, int] = {}
        """Jobs that wait for devices, each with its number."""
        self._ahead: dict[Need, list[tuple[int, str]]] = {}
        """The same by need."""
        self._better: dict[int, list[tuple[Need, str]]] = {}
        """The same for those of each class: what waits in a better one."""
        self._serving: dict[Need, list[Host]] = {}
        self._overlaps: dict[Need, tuple[list[Need], list[Host]]] = {}

    def blocker(self, job: Waiting) -> Blocker:
        """The one thing."""
        need = job.need
        if (placement := self._starting.get(job.id)) is not None:
            are = "is" if len(placement.devices) == 1 else "are"
            message = f"a moment: {_devices(placement)} of host {placement.host.name} {are} free for it"
            return Blocker("starting", message, worker_id=placement.host.worker_id)
        if need not in self._serving:
            self._serving[need] = [host for host in self._hosts.values() if not host.draining and host.could_hold(need)]
        serving = self._serving[need]
        hindered = None if serving else _unserved(self._pool.pool, list(self._hosts.values()), need)
        if hindered := hindered or _full(self._pool.shares[job.owner_id]):
            return hindered
        kept = self._kept_from(job, serving)
        blocker = kept or self._earlier(job, serving) or self._lacking(job, serving)
        self._asked[job.id] = len(self._asked)
        if need not in self._ahead:
            self._ahead[need] = []
            self._overlaps.clear()
        self._ahead[need].append((self._asked[job.id], job.id))
        for worse in range(job.queue_class + 1, Priority.LOW + 1):
            self._better.setdefault(worse, []).append((need, job.id))
        return blocker

    def _kept_from(self, job: Waiting, hosts: Sequence[Host]) -> Blocker | None:
        """A host with enough free for it, which is kept for another; or one that is kept for it, and for another before it."""
        own = self._pool.reservation_of(job)
        for host in hosts if self._keeping else ():
            if host.worker_id not in self._keeping:
                continue
            devices = host.pick(job.need)
            kept = None if devices is None else self._pool.hindrance(host, job, devices)
            if kept is None and own is not None and own.worker_id == host.worker_id:
                # One that comes before it anyway is told of as such.
                kept = next((each for each in self._pool.binding(host, job) if each.job.id not in self._asked), None)
            if kept is not None:
                return self._kept_for(kept, host, job)
        return None

    def _kept_for(self, kept: Reservation, host: Host, job: Waiting) -> Blocker:
        ready = host.ready_at(kept.job.need, now=self._pool.now)
        until = "" if ready is None else f" until about {_clock(ready)}, and this job may run for {job.bound_seconds:,.0f} s"
        message = f"host {host.name}, which is kept free for {kept.job.id}{until}"
        return Blocker("kept_host", message, (kept.job.id,), host.worker_id, ready)

    def _earlier(self, job: Waiting, hosts: Sequence[Host]) -> Blocker | None:
        """The jobs before it that could take what comes free for it; None where there is a host that none of them could take."""
        own = self._host_of(job)
        if own is not None:
            return self._before(job, own)
        wanting, unwanted = self._overlap(job.need, hosts)
        if not wanting or unwanted:
            return None
        count = sum(len(self._ahead[need]) for need in wanting)
        return _jobs_ahead(count, [job_id for _, job_id in islice(heapq.merge(*(self._ahead[need] for need in wanting)), _NAMED)])

    def _before(self, job: Waiting, host: Host) -> Blocker | None:
        """Jobs of a better class, which a host that is kept for this one is not kept from."""
        better = self._better.get(job.queue_class, [])
        names = [job_id for need, job_id in better if need.kind == job.need.kind and host.could_hold(need)]
        return _jobs_ahead(len(names), names[:_NAMED]) if names else None

    def _overlap(self, need: Need, hosts: Sequence[Host]) -> tuple[list[Need], list[Host]]:
        """Of the jobs before: the needs that some of these hosts could hold; and the hosts that could hold none of them."""
        if need not in self._overlaps:
            ids = {host.worker_id for host in hosts}
            taken: set[str] = set()
            wanting = []
            for other in self._ahead:
                both = ids & {host.worker_id for host in self._serving[other]} if other.kind == need.kind else set()
                if both:
                    wanting.append(other)
                    taken |= both
            self._overlaps[need] = wanting, [host for host in hosts if host.worker_id not in taken]
        return self._overlaps[need]

    def _host_of(self, job: Waiting) -> Host | None:
        """The host that is kept for it, if it is the next that starts there."""
        kept = self._pool.reservation_of(job)
        host = None if kept is None else self._hosts.get(kept.worker_id)
        return None if host is None or self._pool.binding(host, job) else host

    def _is_taken(self, host: Host, job: Waiting) -> bool:
        """Whether those that the host is kept for leave it too few devices there, once all are free."""
        before = sum(kept.job.need.count for kept in self._pool.binding(host, job))
        return before > 0 and before + job.need.count > len(host.suitable(job.need))

    def _lacking(self, job: Waiting, hosts: Sequence[Host]) -> Blocker:
        """The host on which its devices should come together first."""
        need, now = job.need, self._pool.now
        own = self._host_of(job)
        hosts = [own] if own is not None else self._overlap(need, hosts)[1] or hosts
        taken = {host.worker_id for host in hosts if host.worker_id in self._keeping and self._is_taken(host, job)}
        ready, host = min(
            ((host.ready_at(need, now=now) or now, host) for host in hosts),
            key=lambda each: (each[1].worker_id in taken, each[0], each[1].worker_id),
        )
        if host.worker_id in taken:
            return self._kept_for(self._pool.binding(host, job)[0], host, job)
        suitable = {device.name for device in host.suitable(need)}
        holding = [holder for name, holder in host.held.items() if name in suitable]
        free, about = host.num_free(need), _clock(ready)
        stopping = tuple(sorted({holder.job_id for holder in holding if holder.stopping}))
        if own is not None and stopping and free + sum(holder.stopping for holder in holding) >= need.count:
            message = f"{need}: {', '.join(stopping)} on host {host.name} {_writes(len(stopping))}"
            return Blocker("preempting", message, stopping, host.worker_id, ready)
        is_kept = ", and is kept free for it" if own is not None else ""
        message = f"{need}: host {host.name} has {free} free until about {about}{is_kept}"
        return Blocker("devices", message, tuple(sorted({holder.job_id for holder in holding})), host.worker_id, ready)


def _jobs_ahead(count: int, names: Sequence[str]) -> Blocker:
    message = f"{count} {_jobs(count)} earlier for the same devices; {names[0]} is next"
    return Blocker("jobs_ahead", message, job_ids=tuple(names))


def _unserved(pool: str, hosts: Sequence[Host], need: Need) -> Blocker | None:
    """Why no host of the pool would ever take it; None where one would."""
    if any(not host.draining and host.could_hold(need) for host in hosts):
        return None
    if not hosts:
        return Blocker("no_worker", f"a worker: none is alive in pool {pool!r}")
    if not any(host.could_hold(need) for host in hosts):
        return Blocker("no_suitable_worker", f"{need}: no worker of pool {pool!r} has {_that_many(need)}")
    return Blocker("draining", f"{need}: every worker of pool {pool!r} that has {_that_many(need)} is draining")


def _full(share: Share | None) -> Blocker | None:
    """The limit of a user who may run no more jobs now."""
    if share is None or not share.is_full:
        return None
    if not share.max_running:
        message = f"an admin to raise max_running_jobs of {share.name}, which is 0: none of their jobs may run"
    else:
        message = f"one of {share.name}'s jobs to end: {share.running} run or start now, and {share.max_running} may"
    return Blocker("user_limit", message)


def _writes(count: int) -> str:
    return "writes a checkpoint and stops" if count == 1 else "write a checkpoint each and stop"


def _devices(placement: Placement) -> str:
    return ", ".join(device.name for device in placement.devices)


def _that_many(need: Need) -> str:
    return "one" if need.count == 1 else "as many"


def _jobs(count: int) -> str:
    return "job that starts" if count == 1 else "jobs that start"


def _clock(time: datetime) -> str:
    return time.strftime("%d %b %H:%M UTC")
