"""The queue and the workers, as clients see them."""

from datetime import datetime
from typing import Literal

from service.api.views.jobs import View


class WaitingJob(View):
    """A queued job."""

    id: str
    name: str
    owner: str
    pool: str
    priority: Literal["low", "normal", "high"]
    position: int
    """1 starts next in its pool."""
    waiting_for: str
    queued_at: datetime


class RunningJob(View):
    """A running job."""

    id: str
    name: str
    owner: str
    pool: str
    worker: str
    devices: list[str]
    started_at: datetime
    fraction: float | None
    """Of its current phase."""
    eta_seconds: float | None


class QueueView(View):
    """What waits and what runs."""

    object: Literal["queue"] = "queue"
    waiting: list[WaitingJob]
    """In the order in which they would start, by pool."""
    num_waiting: int
    """All of them; ``waiting`` holds the first 1000."""
    running: list[RunningJob]


class DeviceView(View):
    """A device of a worker."""

    name: str
    kind: str
    memory_gib: float | None = None
    job_ids: list[str]
    """The jobs on it."""


class WorkerView(View):
    """A process that runs jobs."""

    id: str
    object: Literal["worker"] = "worker"
    host: str
    pid: int
    pool: str
    slots: int
    """Jobs that it may run at once."""
    devices: list[DeviceView]
    job_ids: list[str]
    alive: bool
    """Whether its heart beat within the time of a lease."""
    draining: bool
    started_at: datetime
    heartbeat_at: datetime


class WorkerList(View):
    """The workers that have not ended, by pool and host."""

    object: Literal["list"] = "list"
    data: list[WorkerView]
