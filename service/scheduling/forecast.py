"""Expected starts of waiting jobs: simulates the policy many times with durations drawn from past jobs.

A running job ends by its measured steps; a waiting one takes as long as one of its owner's last jobs of that size or, if these
are few, one of the pool's. (A user's last jobs predict the next: Tsafrir, Etsion, Feitelson: Backfilling using system-generated
predictions rather than user runtime estimates, 2007.) The draws are seeded, so the same queue gives the same answer.
"""

import heapq
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.lifecycle import Status
from service.scheduling.hosts import Holder, Host
from service.scheduling.policy import Placement, Snapshot, Waiting
from service.tables import Job

DRAWS = 20
HORIZON = 100
"""Jobs from the head of the queue, at most, whose start is forecast."""
_HISTORY = 500
_ENOUGH = 5
MAX_STARTS = 1000
"""Starts that one draw simulates, at most: later ones are not forecast."""
_STEP_SPREAD = 0.2
"""Standard deviation of the logarithm of a remaining time that was measured by steps."""


@dataclass(frozen=True)
class Start:
    """Expected start of a job: it starts before ``p50`` with probability 0.5, before ``p90`` with 0.9."""

    p50: datetime
    p90: datetime


@dataclass
class History:
    """Durations of a pool's jobs in seconds over all attempts, newest first."""

    by_owner: dict[tuple[str, int, int], list[float]] = field(default_factory=dict)
    """By owner, GPUs and CPU slots."""
    by_size: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    @cached_property
    def in_order(self) -> Sequence[float]:
        """All durations, shortest first."""
        return sorted(seconds for some in self.by_size.values() for seconds in some)

    def durations(self, job: Waiting) -> Sequence[float]:
        """Durations of similar jobs; empty if there are none."""
        size = (job.need.gpus, job.need.cpu_slots)
        own = self.by_owner.get((job.owner_id, *size), [])
        if len(own) >= _ENOUGH:
            return own
        return self.by_size.get(size) or own or self.in_order


def history(session: Session, pool: str) -> History:
    """Reads the durations of the last jobs of the pool that succeeded."""
    query = (
        select(Job.owner_id, Job.gpus, Job.cpu_slots, Job.run_seconds)
        .where(Job.status == Status.SUCCEEDED, Job.pool == pool)
        .order_by(Job.finished_at.desc())
        .limit(_HISTORY)
    )
    found = History()
    for owner_id, gpus, cpu_slots, seconds in session.execute(query):
        found.by_owner.setdefault((owner_id, gpus, cpu_slots), []).append(seconds)
        found.by_size.setdefault((gpus, cpu_slots), []).append(seconds)
    return found


def starts(simulated: Snapshot, starting: Mapping[str, Placement], wanted: Sequence[Waiting], past: History) -> dict[str, Start]:
    """Expected start of each of ``wanted``, the first jobs in the queue; in ``simulated`` those of ``starting`` have started.

    A job is left out if it does not start in nine of ten draws, or comes after a job of unknown duration.
    """
    drawn: dict[str, list[datetime]] = {job.id: [] for job in wanted}
    for draw in range(DRAWS):
        generator = random.Random(draw)  # noqa: S311 - a forecast, no secret
        for job_id, at in _one_draw(simulated.copy(), starting, {job.id for job in wanted}, past, generator).items():
            drawn[job_id].append(at)
    found = {}
    for job_id, times in drawn.items():
        times.sort()
        if len(times) > DRAWS * 0.9:
            found[job_id] = Start(p50=times[DRAWS // 2], p90=times[int(DRAWS * 0.9)])
    return found


def _one_draw(
    simulated: Snapshot, starting: Mapping[str, Placement], wanted: set[str], past: History, generator: random.Random
) -> dict[str, datetime]:
    started = {job_id: simulated.now for job_id in starting if job_id in wanted}
    if not all(past.durations(placement.job) for placement in starting.values()):
        return started  # it is unknown when their devices come free, and what starts then
    hosts = simulated.find_hosts()
    by_id = {host.worker_id: host for host in hosts}
    ends: list[tuple[datetime, str, str]] = []
    for host in hosts:
        drawn: dict[str, Holder] = {}
        for name, holder in host.held.items():
            if holder.job_id not in drawn:
                placement = starting.get(holder.job_id)
                if placement is None:
                    end = _end_of(holder, past, simulated.now, generator)
                else:
                    end = _end_if_started(placement.job, past, simulated.now, generator)
                drawn[holder.job_id] = holder if end is None else replace(holder, ends_at=end)
                if end is not None:  # else its devices are not counted on
                    ends.append((end, holder.job_id, host.worker_id))
            host.held[name] = drawn[holder.job_id]
    heapq.heapify(ends)
    num_started, all_known = len(starting), True
    freed: Sequence[Host] = ()
    while True:
        for host in freed:
            while (placement := simulated.next_for(host)) is not None:
                job = placement.job
                if job.id in wanted:
                    started[job.id] = simulated.now
                end = _end_if_started(job, past, simulated.now, generator)
                if end is None:
                    all_known = False
                    simulated.start(placement)
                    continue
                simulated.start(placement, ends_at=end)
                heapq.heappush(ends, (end, job.id, host.worker_id))
                num_started += 1
                if num_started == MAX_STARTS:
                    return started
        if not all_known or len(started) == len(wanted) or not ends:
            return started
        time, job_id, worker_id = heapq.heappop(ends)
        simulated.now = max(simulated.now, time)
        host = by_id[worker_id]
        owner_id = next((holder.owner_id for holder in host.held.values() if holder.job_id == job_id), "")
        simulated.release(host, job_id)
        freed = [host]
        if (share := simulated.shares.get(owner_id)) is not None:
            if share.is_full:  # another of its owner's jobs may start now, on any host
                freed = hosts
            share.running -= 1


def _end_if_started(job: Waiting, past: History, now: datetime, generator: random.Random) -> datetime | None:
    """A drawn end of a job that starts now; None if no similar job is known."""
    durations = past.durations(job)
    if not durations:
        return None
    seconds = max(1.0, generator.choice(durations) - job.ran_seconds)
    return now + timedelta(seconds=min(seconds, max(1.0, job.bound_seconds)))


def _end_of(holder: Holder, past: History, now: datetime, generator: random.Random) -> datetime | None:
    """A drawn end of a running job; None if its steps are not measured and no past job took longer than it has by now."""
    if holder.measured or holder.stopping:
        remaining = max(0.0, (holder.ends_at - now).total_seconds())
        end = now + timedelta(seconds=remaining * generator.lognormvariate(0.0, _STEP_SPREAD))
        return end if holder.stopping else min(end, max(now, holder.time_is_up_at or end))
    elapsed = max(0.0, (now - holder.started_at).total_seconds())
    all_of_them = past.in_order
    shorter = bisect_right(all_of_them, elapsed)
    longer = len(all_of_them) - shorter
    if not longer:
        return None
    end = holder.started_at + timedelta(seconds=all_of_them[shorter + generator.randrange(longer)])
    return max(now, min(end, holder.ends_at))
