"""Requests and responses about the queue, the workers and their usage."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.api.responses.shape import Listing, View
from service.scheduling.blockers import Blocker, PendingReason
from service.scheduling.explain import Place
from service.scheduling.policy import Share


class BlockerView(View):
    """What a queued job waits for."""

    cause: PendingReason
    """``starting``: it starts now. ``no_worker``: its pool has no worker. ``no_suitable_worker``: no worker of its pool is
    large enough. ``draining``: no worker of its pool takes jobs. ``user_limit``: its owner has reached the limit on running jobs.
    ``jobs_ahead``: jobs before it start first on the same devices. ``devices``: it is next, and no host has enough free devices.
    ``preempting``: jobs of low priority are being stopped for it. ``kept_host``: the hosts that it fits on are reserved for a job
    that has waited long, and it might run beyond that job's expected start."""
    message: str
    """In words."""
    job_ids: list[str]
    """The jobs that use the devices it needs, or start before it; at most ten."""
    worker: str | None
    """The worker that would take it."""
    until: datetime | None
    """When that should end, if it is known."""


class StartView(View):
    """When a job should start, by the measured steps of running jobs and the durations of earlier jobs like the waiting ones."""

    p50: datetime
    """The median: the job starts before it with a probability of one half."""
    p90: datetime
    """The 90th percentile: nine times of ten the job starts before it."""


class FairShareView(View):
    """The fair share of a job's owner. Within a priority the jobs of the owner with the lowest ``level`` start first."""

    used: float
    """Used GPU-seconds, decayed: each half-life halves them."""
    weight: float
    """The user's share weight."""
    level: float
    """``used / weight``."""
    running: int | None
    """Running jobs of the owner, in all pools; null if the owner has no limit."""
    max_running_jobs: int | None
    """The limit on them; null for none."""


class WaitingJob(View):
    """A queued job."""

    id: str
    """The job's id."""
    name: str
    """The job's name."""
    owner: str
    """The name of the user who submitted it."""
    pool: str
    """The pool whose workers may take it."""
    priority: Literal["low", "normal", "high"]
    """Its priority."""
    position: int
    """1 starts next in its pool if it fits."""
    waiting_for: str
    """What blocks it, in words."""
    blocker: BlockerView
    """The same for programs."""
    needs: str
    """The devices and the memory of a host that it uses while it runs."""
    expected_start: StartView | None
    """Null if too little is known, and after the first hundred jobs."""
    queued_at: datetime
    """When it was first ready to start."""


class RunningJob(View):
    """A running job."""

    id: str
    """The job's id."""
    name: str
    """The job's name."""
    owner: str
    """The name of the user who submitted it."""
    pool: str
    """The pool whose workers may take it."""
    worker: str
    """The worker that runs it."""
    devices: list[str]
    """The devices of that worker that it uses."""
    started_at: datetime
    """When this attempt started."""
    expected_end_at: datetime | None
    """When it should end, by its measured steps; null before the first of them."""
    phase: str | None
    """Its current phase: teacher, cache, student, control, evaluation or export; null before the first of them."""
    fraction: float | None
    """Completed share of its current phase, 0 to 1."""
    eta_seconds: float | None
    """Estimated seconds until its current phase ends."""


class QueueView(View):
    """The waiting and the running jobs."""

    object: Literal["queue"] = "queue"
    """The type of the object."""
    waiting: list[WaitingJob]
    """In the order in which they would start, by pool; the first 1000 of each."""
    num_waiting: int
    """The number of all waiting jobs."""
    running: list[RunningJob]
    """The jobs that run."""


class DeviceView(View):
    """A device of a worker."""

    name: str
    """Its name on the worker: ``cpu:0``, ``cuda:0``."""
    kind: str
    """``cpu`` or ``cuda``."""
    memory_gib: float | None = None
    """The memory of a GPU, in GiB; for a CPU slot the memory of the host, which all its slots share."""
    job_ids: list[str]
    """The jobs on it."""


class WorkerView(View):
    """A process that runs jobs."""

    id: str
    """``worker_`` and 26 characters."""
    object: Literal["worker"] = "worker"
    """The type of the object."""
    host: str
    """The machine that it runs on."""
    pid: int
    """Its process id there."""
    pool: str
    """The pool whose jobs it takes."""
    slots: int
    """The most jobs that it runs at once."""
    devices: list[DeviceView]
    """The devices that it trains on."""
    job_ids: list[str]
    """The jobs that it runs."""
    alive: bool
    """Whether its last heartbeat is within the time of a lease."""
    draining: bool
    """Whether it takes no more jobs."""
    started_at: datetime
    """When it started."""
    heartbeat_at: datetime
    """When its last heartbeat arrived."""


class DrainRequest(View):
    """How to drain."""

    model_config = ConfigDict(extra="forbid")

    jobs: Literal["requeue", "finish"] = "requeue"
    """What happens to its jobs: ``requeue`` writes a checkpoint and puts them back into the queue, to continue elsewhere;
    ``finish`` lets them run to their end."""


class WorkerList(Listing[WorkerView]):
    """The workers that have not ended, by pool and host."""


class UsageView(View):
    """The usage of a user."""

    user: str
    """The user's name."""
    gpu_seconds: float
    """Seconds multiplied by the number of GPUs."""
    cpu_slot_seconds: float
    """Seconds multiplied by the number of CPU slots."""
    jobs: int
    """Jobs that started for the first time."""
    share: Annotated[float, Field(ge=0, le=1)]
    """The share of all usage; a CPU slot counts as a fraction of a GPU."""
    weight: float
    """The user's share weight."""
    fair_share: Annotated[float, Field(ge=0, le=1)]
    """The share of all weights: what this user would get if everybody always had jobs."""
    decayed: float
    """GPU-seconds as the queue counts them now, decayed: each half-life halves them."""


class UsageList(Listing[UsageView]):
    """Every user, the heaviest first."""

    since: datetime | None = Field(description="The first hour that is counted; null for all time.")


def blocker_view(blocker: Blocker) -> BlockerView:
    """Builds the response for what blocks a job."""
    return BlockerView(
        cause=blocker.reason,
        message=blocker.message,
        job_ids=list(blocker.job_ids[:10]),
        worker=blocker.worker_id,
        until=blocker.until,
    )


def start_view(place: Place) -> StartView | None:
    """Builds the response for when a job should start."""
    return None if place.start is None else StartView(p50=place.start.p50, p90=place.start.p90)


def fair_share_view(share: Share) -> FairShareView:
    """Builds the response for a user's fair share."""
    return FairShareView(
        used=share.used,
        weight=share.weight,
        level=share.level,
        running=None if share.max_running is None else share.running,
        max_running_jobs=share.max_running,
    )
