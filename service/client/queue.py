"""Typed responses about the shared queue: waiting and running jobs, workers, users and their usage."""

from datetime import datetime

from service.client.resources import Resource, Start


class Blocker(Resource):
    """What a queued job waits for."""

    cause: str
    message: str
    job_ids: list[str] = []
    """The jobs that use the devices it needs, or start before it; at most ten."""
    worker: str | None = None
    until: datetime | None = None


class FairShare(Resource):
    """The fair share of a job's owner: within a priority, the jobs of the owner with the lowest ``level`` start first."""

    used: float
    """Used GPU-seconds, decayed: each half-life halves them."""
    weight: float
    level: float
    running: int | None = None
    max_running_jobs: int | None = None


class Explanation(Resource):
    """Why a job is in its state."""

    job_id: str
    status: str
    reason: str
    pool: str
    position: int | None = None
    ahead: int | None = None
    waiting_for: str | None = None
    blocker: Blocker | None = None
    needs: str = ""
    fair_share: FairShare | None = None
    expected_start: Start | None = None
    blocked_by: list[str] = []
    """Unfinished jobs that it depends on."""
    live_workers: int | None = None
    suitable_workers: int | None = None


class WaitingJob(Resource):
    """A queued job."""

    id: str
    name: str = ""
    owner: str
    pool: str
    priority: str
    position: int
    waiting_for: str
    blocker: Blocker
    needs: str = ""
    expected_start: Start | None = None
    queued_at: datetime


class RunningJob(Resource):
    """A running job."""

    id: str
    name: str = ""
    owner: str
    pool: str
    worker: str
    devices: list[str] = []
    started_at: datetime
    expected_end_at: datetime | None = None
    phase: str | None = None
    fraction: float | None = None
    """Completed share of its current phase, 0 to 1."""
    eta_seconds: float | None = None
    """Estimated seconds until its current phase ends."""


class Queue(Resource):
    """The waiting jobs in the order in which they would start, and the running ones."""

    waiting: list[WaitingJob]
    num_waiting: int
    running: list[RunningJob]


class Device(Resource):
    """A device of a worker and the jobs on it."""

    name: str
    kind: str
    memory_gib: float | None = None
    job_ids: list[str] = []


class Worker(Resource):
    """A process that runs jobs."""

    id: str
    host: str | None = None
    pid: int | None = None
    pool: str | None = None
    slots: int | None = None
    devices: list[Device] = []
    job_ids: list[str] = []
    alive: bool | None = None
    draining: bool | None = None
    heartbeat_at: datetime | None = None


class Usage(Resource):
    """The usage of a user."""

    user: str
    gpu_seconds: float
    cpu_slot_seconds: float = 0.0
    jobs: int = 0
    """Jobs that started for the first time."""
    share: float
    """The share of all usage, 0 to 1."""
    weight: float = 1.0
    fair_share: float
    """The share of all weights, 0 to 1."""
    decayed: float = 0.0
    """GPU-seconds as the queue counts them now, decayed."""


class User(Resource):
    """A person or a program of the team. A limit of None is no limit."""

    id: str
    name: str
    share_weight: float = 1.0
    max_running_jobs: int | None = None
    max_queued_jobs: int | None = None
    created_at: datetime | None = None
