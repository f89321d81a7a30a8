"""The one thing that a queued job waits for: its reason, what it involves, and the sentence for it. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from service.scheduling.hosts import Host, Need
from service.scheduling.policy import Placement, Reservation, Share, Waiting

MAX_NAMED = 10
"""Jobs that a blocker names, at most."""

PendingReason = Literal[
    "starting", "no_worker", "no_suitable_worker", "draining", "user_limit", "jobs_ahead", "devices", "preempting", "kept_host"
]


@dataclass(frozen=True)
class Blocker:
    """The one thing that a queued job waits for."""

    reason: PendingReason
    message: str
    """A phrase that completes "waits for"."""
    job_ids: tuple[str, ...] = ()
    """The jobs that hold what it needs, or start before it."""
    worker_id: str | None = None
    """The host that would take it."""
    until: datetime | None = None
    """Expected end of the wait, if known."""


def starting(placement: Placement) -> Blocker:
    """For a job that the next claim of a host takes."""
    are = "is" if len(placement.devices) == 1 else "are"
    names = ", ".join(device.name for device in placement.devices)
    message = f"a moment: {names} of host {placement.host.name} {are} free for it"
    return Blocker("starting", message, worker_id=placement.host.worker_id)


def unserved(pool: str, hosts: Sequence[Host], need: Need) -> Blocker | None:
    """For a need that no host of the pool would ever serve; None if one would."""
    if any(not host.draining and host.could_hold(need) for host in hosts):
        return None
    if not hosts:
        return Blocker("no_worker", f"a worker: none is alive in pool {pool!r}")
    if not any(host.could_hold(need) for host in hosts):
        return Blocker("no_suitable_worker", f"{need}: no worker of pool {pool!r} has {_that_many(need)}")
    return Blocker("draining", f"{need}: every worker of pool {pool!r} that has {_that_many(need)} is draining")


def user_limit(share: Share | None) -> Blocker | None:
    """For a user who may run no more jobs now; None if the user may, or is not known."""
    if share is None or not share.is_full:
        return None
    if not share.max_running:
        message = f"an admin to raise max_running_jobs of {share.name}, which is 0: none of their jobs may run"
    else:
        message = f"one of {share.name}'s jobs to end: {share.running} run or start now, and {share.max_running} may"
    return Blocker("user_limit", message)


def jobs_ahead(count: int, job_ids: Sequence[str]) -> Blocker:
    """For a job that starts after ``count`` others; ``job_ids`` are the first of them."""
    jobs = "job that starts" if count == 1 else "jobs that start"
    return Blocker("jobs_ahead", f"{count} {jobs} earlier for the same devices; {job_ids[0]} is next", job_ids=tuple(job_ids))


def many_jobs_ahead(count: int) -> Blocker:
    """For a job behind more jobs than are counted."""
    return Blocker("jobs_ahead", f"the turn of more than {count:,} jobs that start earlier")


def reserved_host(reservation: Reservation, host: Host, job: Waiting, *, now: datetime) -> Blocker:
    """For a job that a reservation for another keeps from a host."""
    ready = host.ready_at(reservation.job.need, now=now)
    until = "" if ready is None else f" until about {_clock(ready)}, and this job may run for {job.bound_seconds:,.0f} s"
    message = f"host {host.name}, which is kept free for {reservation.job.id}{until}"
    return Blocker("kept_host", message, (reservation.job.id,), host.worker_id, ready)


def preempting(need: Need, host: Host, job_ids: tuple[str, ...], *, until: datetime) -> Blocker:
    """For a job whose devices come free once ``job_ids`` have stopped."""
    does = "writes a checkpoint and stops" if len(job_ids) == 1 else "write a checkpoint each and stop"
    return Blocker("preempting", f"{need}: {', '.join(job_ids)} on host {host.name} {does}", job_ids, host.worker_id, until)


def devices(need: Need, host: Host, job_ids: tuple[str, ...], *, is_reserved: bool, until: datetime) -> Blocker:
    """For a job whose devices ``job_ids`` hold on the host where enough of them should be free first."""
    reserved = ", and is kept free for it" if is_reserved else ""
    message = f"{need}: host {host.name} has {host.num_free(need)} free until about {_clock(until)}{reserved}"
    return Blocker("devices", message, job_ids, host.worker_id, until)


def _that_many(need: Need) -> str:
    return "one" if need.count == 1 else "as many"


def _clock(time: datetime) -> str:
    return time.strftime("%d %b %H:%M UTC")
