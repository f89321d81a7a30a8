"""The queue and the workers, as clients see them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.api.responses.shape import Listing, View
from service.scheduling.outlook import Blocker, Cause, Place
from service.scheduling.policy import Share


class BlockerView(View):
    """The one thing that a queued job waits for."""

    cause: Cause
    """``starting``: nothing any more. ``no_worker``, ``no_suitable_worker``, ``draining``: of its pool's workers.
    ``user_limit``: its owner's. ``jobs_ahead``: others have their turn for the same devices first. ``devices``: it is next, and
    too few are free on any host. ``preempting``: jobs of low priority are stopping for it. ``kept_host``: what it fits on is
    kept free for a job that waited long, and it might run for longer than that will wait."""
    message: str
    """In words."""
    job_ids: list[str]
    """The jobs that hold what it needs, or come before it; the first ten of them."""
    worker: str | None
    """The worker that would take it."""
    until: datetime | None
    """When that should be over, where that is known."""


class StartView(View):
    """When a job should start, by the measured steps of what runs and by how long jobs like the waiting ones took."""

    p50: datetime
    """As likely before as after."""
    p90: datetime
    """Nine times of ten before."""


class FairShareView(View):
    """What stands in the queue for a job's owner. Within a class the jobs of the owner with the lowest ``level`` start first."""

    used: float
    """GPU-seconds, of which each half-life takes a half."""
    weight: float
    """The user's share weight."""
    level: float
    """``used / weight``."""
    running: int | None
    """Jobs of the owner that run, in all pools; null where no limit makes it matter."""
    max_running_jobs: int | None
    """How many may; null for any number."""


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
    """Its class."""
    position: int
    """1 starts next in its pool, where it fits."""
    waiting_for: str
    """The one thing that blocks it, in words."""
    blocker: BlockerView
    """The same for programs."""
    needs: str
    """What it holds of a host while it runs."""
    expected_start: StartView | None
    """Null where too little is known, and behind the first hundred."""
    queued_at: datetime
    """When it first was ready to start."""


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
    """The devices of that worker that it holds."""
    started_at: datetime
    """When this attempt started."""
    expected_end_at: datetime | None
    """When it should end, by its measured steps; null until there are some."""
    fraction: float | None
    """Share of its current phase that is done, 0 to 1."""
    eta_seconds: float | None
    """About how many seconds its current phase still takes."""


class QueueView(View):
    """What waits and what runs."""

    object: Literal["queue"] = "queue"
    """What this is."""
    waiting: list[WaitingJob]
    """In the order in which they would start, by pool; the first 1000 of each."""
    num_waiting: int
    """All of them."""
    running: list[RunningJob]
    """The jobs that run."""


class DeviceView(View):
    """A device of a worker."""

    name: str
    """As the worker knows it: ``cpu:0``, ``cuda:0``."""
    kind: str
    """``cpu`` or ``cuda``."""
    memory_gib: float | None = None
    """The memory of a GPU, in GiB; of a CPU slot that of its host, which all its slots share."""
    job_ids: list[str]
    """The jobs on it."""


class WorkerView(View):
    """A process that runs jobs."""

    id: str
    """``worker_`` and 26 characters."""
    object: Literal["worker"] = "worker"
    """What this is."""
    host: str
    """The machine that it runs on."""
    pid: int
    """Its process there."""
    pool: str
    """The pool whose jobs it takes."""
    slots: int
    """Jobs that it may run at once."""
    devices: list[DeviceView]
    """What it trains on."""
    job_ids: list[str]
    """The jobs that it runs."""
    alive: bool
    """Whether its heart beat within the time of a lease."""
    draining: bool
    """Whether it takes no more jobs."""
    started_at: datetime
    """When it started."""
    heartbeat_at: datetime
    """When it last said that it lives."""


class DrainRequest(View):
    """How to drain."""

    model_config = ConfigDict(extra="forbid")

    jobs: Literal["requeue", "finish"] = "requeue"
    """What becomes of the jobs on it: ``requeue`` writes a checkpoint and puts them back into the queue, to go on elsewhere;
    ``finish`` lets them run to their end."""


class WorkerList(Listing[WorkerView]):
    """The workers that have not ended, by pool and host."""


class UsageView(View):
    """What a user used."""

    user: str
    """The user's name."""
    gpu_seconds: float
    """Seconds times GPUs held."""
    cpu_slot_seconds: float
    """Seconds times CPU slots held."""
    jobs: int
    """Jobs that started for the first time."""
    share: Annotated[float, Field(ge=0, le=1)]
    """Of all that was used; a CPU slot counts a fraction of a GPU."""
    weight: float
    """The user's share weight."""
    fair_share: Annotated[float, Field(ge=0, le=1)]
    """Of all weights: what would be this user's if everybody always had jobs."""
    decayed: float
    """GPU-seconds as the queue counts them now: each half-life takes a half."""


class UsageList(Listing[UsageView]):
    """Every user, those who used most first."""

    since: datetime | None
    """The hour from which on is counted; null for all time."""


def blocker_view(blocker: Blocker) -> BlockerView:
    """What blocks a job, as clients see it."""
    return BlockerView(
        cause=blocker.cause,
        message=blocker.message,
        job_ids=list(blocker.job_ids[:10]),
        worker=blocker.worker_id,
        until=blocker.until,
    )


def start_view(place: Place) -> StartView | None:
    """When a job should start, as clients see it."""
    return None if place.start is None else StartView(p50=place.start.p50, p90=place.start.p90)


def fair_share_view(share: Share) -> FairShareView:
    """The terms of a user's fair share."""
    return FairShareView(
        used=share.used,
        weight=share.weight,
        level=share.level,
        running=None if share.max_running is None else share.running,
        max_running_jobs=share.max_running,
    )
