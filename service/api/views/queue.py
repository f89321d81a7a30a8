"""The queue and the workers, as clients see them."""

from datetime import datetime
from typing import Literal

from service.api.views.shape import Listing, View


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
    """1 starts next in its pool."""
    waiting_for: str
    """The one thing that blocks it, in words."""
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
    fraction: float | None
    """Share of its current phase that is done, 0 to 1."""
    eta_seconds: float | None
    """About how many seconds its current phase still takes."""


class QueueView(View):
    """What waits and what runs."""

    object: Literal["queue"] = "queue"
    """What this is."""
    waiting: list[WaitingJob]
    """In the order in which they would start, by pool."""
    num_waiting: int
    """All of them; ``waiting`` holds the first 1000."""
    running: list[RunningJob]
    """The jobs that run."""


class DeviceView(View):
    """A device of a worker."""

    name: str
    """As the worker knows it: ``cpu``, ``cuda:0``."""
    kind: str
    """``cpu`` or ``cuda``."""
    memory_gib: float | None = None
    """The memory of a GPU, in GiB."""
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
    """Whether it takes no more jobs and ends once it has put back those that it runs."""
    started_at: datetime
    """When it started."""
    heartbeat_at: datetime
    """When it last said that it lives."""


class WorkerList(Listing[WorkerView]):
    """The workers that have not ended, by pool and host."""
