"""Explains a pool's queue: each waiting job's place, the one thing that blocks it, and when it should start.

The policy is that of the claim: a simulation starts every job that could start at this moment, and each job that is left over is
explained by what it lacks. Places follow the order in which jobs would start, each start charged to its owner as a claim would:
jobs that start at this moment have their places by the snapshot before these starts, the others by the snapshot after them.
"""

import heapq
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.lifecycle import Priority, Status
from service.scheduling import blockers
from service.scheduling.blockers import MAX_NAMED, Blocker
from service.scheduling.forecast import HORIZON, Start, history, starts
from service.scheduling.hosts import Host, Need
from service.scheduling.policy import Placement, Share, Snapshot, Waiting
from service.scheduling.queue_order import queue_order
from service.scheduling.snapshot import need_of, take_snapshot
from service.tables import Job, JobDependency

MAX_PLACES = 1000
"""Jobs of a pool whose place is counted; all further ones are reported as behind them."""
_DEPTH = 5


@dataclass(frozen=True)
class Place:
    """A queued job's position, what blocks it, and its expected start."""

    position: int
    """From 1; ``MAX_PLACES + 1`` for all that are behind."""
    blocker: Blocker
    start: Start | None = None


@dataclass(frozen=True)
class QueueStatus:
    """A pool's queue at one moment, explained."""

    pool: str
    as_of: datetime
    places: dict[str, Place]
    """By job, in queue order."""
    num_waiting: int
    shares: Mapping[str, Share]
    """Of the users whose jobs wait."""
    hosts: Sequence[Host]
    """Those with a recent heartbeat."""

    def place(self, job: Any) -> Place | None:
        """The place of a job, by its row; None for a job that was not queued at that moment."""
        if (found := self.places.get(job.id)) is not None or self.num_waiting < MAX_PLACES:
            return found
        blocker = blockers.unserved(self.pool, self.hosts, need_of(job)) or blockers.user_limit(self.shares.get(job.owner_id))
        return Place(MAX_PLACES + 1, blocker or blockers.many_jobs_ahead(MAX_PLACES))

    def suitable(self, need: Need) -> list[Host]:
        """The hosts that could hold the need if nothing ran on them."""
        return [host for host in self.hosts if not host.draining and host.could_hold(need)]


def explain(session: Session, pool: str, *, lease_seconds: float) -> QueueStatus:
    """Computes the status of a pool's queue now."""
    snapshot = take_snapshot(session, pool, lease_seconds=lease_seconds, depth=_DEPTH)
    simulated, starting = snapshot.simulate()
    jobs = _in_order(snapshot, simulated, starting)
    finder = _BlockerFinder(simulated, starting)
    places: dict[str, Place] = {}
    for position, job in enumerate(jobs, start=1):
        places[job.id] = Place(position, finder.find(job))
    first = jobs[:HORIZON]
    if first:
        for job_id, start in starts(simulated, starting, first, history(session, pool)).items():
            places[job_id] = replace(places[job_id], start=start)
    num_waiting = len(jobs)
    if num_waiting == MAX_PLACES:
        queued = select(func.count()).select_from(Job).where(Job.status == Status.QUEUED, Job.pool == pool)
        num_waiting = session.scalar(queued) or 0
        for placement in starting.values():
            places.setdefault(placement.job.id, Place(MAX_PLACES + 1, finder.find(placement.job)))
    return QueueStatus(pool, snapshot.now, places, num_waiting, snapshot.shares, snapshot.find_hosts())


def open_needs(session: Session, job: Job) -> dict[str, Status]:
    """The unfinished jobs that this one depends on, each with its state."""
    query = (
        select(Job.id, Job.status)
        .join(JobDependency, JobDependency.needs_job_id == Job.id)
        .where(JobDependency.job_id == job.id, Job.status != Status.SUCCEEDED)
        .order_by(Job.id)
    )
    return {job_id: Status(status) for job_id, status in session.execute(query)}


def _in_order(snapshot: Snapshot, simulated: Snapshot, starting: Container[str]) -> list[Waiting]:
    """The first ``MAX_PLACES`` waiting jobs; ``simulated`` is the snapshot in which those of ``starting`` have started."""
    waiting = queue_order(simulated, MAX_PLACES)
    return [job if job.id in starting else next(waiting) for job in queue_order(snapshot, MAX_PLACES, starting=starting)]


class _BlockerFinder:
    """Finds each job's blocker. Jobs must come in queue order: the ones before are those that a job may have to wait for."""

    def __init__(self, simulated: Snapshot, starting: dict[str, Placement]) -> None:
        self._snapshot, self._starting = simulated, starting
        self._hosts = {host.worker_id: host for host in simulated.find_hosts()}
        self._reserved = {reservation.worker_id for reservation in simulated.reservations}
        self._order: dict[str, int] = {}
        """The jobs so far that wait for devices, each with its number."""
        self._ahead: dict[Need, list[tuple[int, str]]] = {}
        """The same by need."""
        self._better: dict[int, list[tuple[Need, str]]] = {}
        """By class: the jobs so far that wait in a better one."""
        self._serving: dict[Need, list[Host]] = {}
        self._overlaps: dict[Need, tuple[list[Need], list[Host]]] = {}

    def find(self, job: Waiting) -> Blocker:
        """The first of all that must change before the job can start."""
        need = job.need
        if (placement := self._starting.get(job.id)) is not None:
            return blockers.starting(placement)
        if need not in self._serving:
            self._serving[need] = [host for host in self._hosts.values() if not host.draining and host.could_hold(need)]
        serving = self._serving[need]
        never = None if serving else blockers.unserved(self._snapshot.pool, list(self._hosts.values()), need)
        if blocker := never or blockers.user_limit(self._snapshot.shares[job.owner_id]):
            return blocker
        blocker = self._reserved_host(job, serving) or self._jobs_ahead(job, serving) or self._devices(job, serving)
        self._order[job.id] = len(self._order)
        if need not in self._ahead:
            self._ahead[need] = []
            self._overlaps.clear()
        self._ahead[need].append((self._order[job.id], job.id))
        for worse in range(job.queue_class + 1, Priority.LOW + 1):
            self._better.setdefault(worse, []).append((need, job.id))
        return blocker

    def _reserved_host(self, job: Waiting, hosts: Sequence[Host]) -> Blocker | None:
        """A host with enough free devices that is reserved for another; or one reserved for it and for another before it."""
        own = self._snapshot.reservation_of(job)
        for host in hosts if self._reserved else ():
            if host.worker_id not in self._reserved:
                continue
            devices = host.pick(job.need)
            reservation = None if devices is None else self._snapshot.blocking_reservation(host, job, devices)
            if reservation is None and own is not None and own.worker_id == host.worker_id:
                # A job that comes before it in the queue is reported as one ahead.
                binding = self._snapshot.binding_reservations(host, job)
                reservation = next((each for each in binding if each.job.id not in self._order), None)
            if reservation is not None:
                return blockers.reserved_host(reservation, host, job, now=self._snapshot.now)
        return None

    def _jobs_ahead(self, job: Waiting, hosts: Sequence[Host]) -> Blocker | None:
        """The jobs before it that could take what comes free for it; None if none of them could take some host."""
        own = self._own_host(job)
        if own is not None:
            return self._better_jobs_ahead(job, own)
        wanting, unwanted = self._overlap(job.need, hosts)
        if not wanting or unwanted:
            return None
        count = sum(len(self._ahead[need]) for need in wanting)
        first = islice(heapq.merge(*(self._ahead[need] for need in wanting)), MAX_NAMED)
        return blockers.jobs_ahead(count, [job_id for _, job_id in first])

    def _better_jobs_ahead(self, job: Waiting, host: Host) -> Blocker | None:
        """The jobs of a better class: the reservation of this one does not keep them from its host."""
        better = self._better.get(job.queue_class, [])
        names = [job_id for need, job_id in better if need.kind == job.need.kind and host.could_hold(need)]
        return blockers.jobs_ahead(len(names), names[:MAX_NAMED]) if names else None

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

    def _own_host(self, job: Waiting) -> Host | None:
        """The host that is reserved for it, if it is the next to start there."""
        reservation = self._snapshot.reservation_of(job)
        host = None if reservation is None else self._hosts.get(reservation.worker_id)
        return None if host is None or self._snapshot.binding_reservations(host, job) else host

    def _is_taken(self, host: Host, job: Waiting) -> bool:
        """Whether the reservations before it leave it too few devices of the host even when all are free."""
        before = sum(reservation.job.need.count for reservation in self._snapshot.binding_reservations(host, job))
        return before > 0 and before + job.need.count > len(host.suitable(job.need))

    def _devices(self, job: Waiting, hosts: Sequence[Host]) -> Blocker:
        """The host on which enough of its devices should be free first."""
        need, now = job.need, self._snapshot.now
        own = self._own_host(job)
        hosts = [own] if own is not None else self._overlap(need, hosts)[1] or hosts
        taken = {host.worker_id for host in hosts if host.worker_id in self._reserved and self._is_taken(host, job)}
        ready, host = min(
            ((host.ready_at(need, now=now) or now, host) for host in hosts),
            key=lambda each: (each[1].worker_id in taken, each[0], each[1].worker_id),
        )
        if host.worker_id in taken:
            return blockers.reserved_host(self._snapshot.binding_reservations(host, job)[0], host, job, now=now)
        suitable = {device.name for device in host.suitable(need)}
        holding = [holder for name, holder in host.held.items() if name in suitable]
        stopping = tuple(sorted({holder.job_id for holder in holding if holder.stopping}))
        if own is not None and stopping and host.num_free(need) + sum(holder.stopping for holder in holding) >= need.count:
            return blockers.preempting(need, host, stopping, until=ready)
        holders = tuple(sorted({holder.job_id for holder in holding}))
        return blockers.devices(need, host, holders, is_reserved=own is not None, until=ready)
