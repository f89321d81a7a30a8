"""A job and what belongs to it, as clients see them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from service.errors import JobFailure
from service.jobs import PRIORITY_RANK
from service.lifecycle import FINAL, Status
from service.queries import JobRow
from service.tables import Artifact, JobEvent
from service.waiting import live_workers, open_needs, suitable

PRIORITY_NAMES = {rank: name for name, rank in PRIORITY_RANK.items()}
SPEC_EXAMPLE: dict[str, Any] = {
    "name": "digits, CNN to a tenth of its size",
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"source": "train", "architecture": {"name": "small-cnn", "width": 64}, "training": {"epochs": 20}},
    "student": {"architecture": {"name": "small-cnn", "width": 8}},
    "method": {"name": "soft-targets", "temperature": 4.0},
    "training": {"epochs": 30},
}


class View(BaseModel):
    """What all answers have in common."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ProgressView(View):
    """How far the current phase is."""

    phase: str
    """checking, teacher, cache, student, control, evaluation or export."""
    step: int | None = None
    """Optimizer steps done in this phase."""
    total_steps: int | None = None
    epoch: int | None = None
    fraction: float | None = None
    """0 to 1."""
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    message: str | None = None
    """What the phase does, for people."""


class QueuePlace(View):
    """Where a queued job stands in its pool. It is worked out at each reading and is no part of the job's version."""

    position: int
    """1 starts next."""
    waiting_for: str


class JobView(View):
    """A job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "job_01k5zq3v7m8n9p0q1r2s3t4v5w",
                    "object": "job",
                    "name": "digits, CNN to a tenth of its size",
                    "owner": "ada",
                    "labels": {"project": "demo"},
                    "status": "running",
                    "terminal": False,
                    "status_reason": "runs on gpu-1",
                    "stop_requested": None,
                    "priority": "normal",
                    "spec": SPEC_EXAMPLE,
                    "progress": {"phase": "student", "step": 120, "total_steps": 600, "epoch": 6, "fraction": 0.2},
                    "queue": None,
                    "attempt": 1,
                    "max_attempts": 3,
                    "crashes": 0,
                    "worker": "worker_01k5zq3v7m8n9p0q1r2s3t4v5x",
                    "devices": ["cuda:0"],
                    "created_at": "2026-11-02T09:30:00Z",
                    "queued_at": "2026-11-02T09:30:00Z",
                    "started_at": "2026-11-02T09:30:01Z",
                    "finished_at": None,
                    "gpu_seconds": 0.0,
                    "result": None,
                    "error": None,
                    "version": 17,
                }
            ]
        }
    )

    id: str
    object: Literal["job"] = "job"
    name: str
    owner: str
    """The name of the user who submitted it."""
    labels: dict[str, str]
    status: Status
    terminal: bool
    """Whether this state is final: the job will not run any more."""
    status_reason: str
    stop_requested: str | None
    """cancel, pause or drain, while a running job is being stopped."""
    priority: Literal["low", "normal", "high"]
    spec: dict[str, Any]
    """Complete: posting it again repeats the job."""
    progress: ProgressView | None
    queue: QueuePlace | None
    """Null unless queued."""
    attempt: int
    """How often the job was started."""
    max_attempts: int
    """How many crashes are final."""
    crashes: int
    worker: str | None
    """The worker of the current or last attempt."""
    devices: list[str] | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    """Start of the current or last attempt."""
    finished_at: datetime | None
    gpu_seconds: float
    result: dict[str, Any] | None
    """The report's headline figures."""
    error: JobFailure | None
    version: int
    """Grows with each change; the ETag is this number in quotes."""


class JobPage(View):
    """Jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool
    """Whether there are older ones: ask with ``after`` = the last id."""


class EventView(View):
    """One thing that happened to a job."""

    seq: int
    """Counts from 1, without gaps."""
    type: str
    """``job.*`` for transitions, ``progress``, ``metrics``, ``checkpoint``."""
    message: str
    data: dict[str, Any]
    created_at: datetime


class EventPage(View):
    """Events in their order."""

    object: Literal["list"] = "list"
    data: list[EventView]
    has_more: bool


class MetricView(View):
    """One metric's points: step, value."""

    name: str
    points: list[tuple[int, float]]


class MetricList(View):
    """The metrics of a job, by name."""

    object: Literal["list"] = "list"
    data: list[MetricView]


class ArtifactView(View):
    """A file that a job left."""

    name: str
    size: int
    sha256: str
    media_type: str


class ArtifactList(View):
    """The files of a job, by name."""

    object: Literal["list"] = "list"
    data: list[ArtifactView]


class Explanation(View):
    """Why a job is where it is."""

    object: Literal["explanation"] = "explanation"
    job_id: str
    status: Status
    reason: str
    pool: str
    position: int | None
    ahead: int | None
    """Queued jobs of the pool that start earlier."""
    waiting_for: str | None
    """The one thing that blocks it."""
    blocked_by: list[str]
    """Unfinished jobs that it depends on."""
    live_workers: int
    """Workers of the pool whose heart beats."""
    suitable_workers: int
    """Those of them with a device that could hold it, free or not."""


class CancelRequest(View):
    """How to cancel."""

    model_config = ConfigDict(extra="forbid")

    keep: Literal["best", "last", "none"] = "last"
    """The checkpoint that stays as a usable student."""


class JobEdit(View):
    """What may be changed of a job."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"priority": "low", "labels": {"project": "demo"}}]}
    )

    name: Annotated[str, Field(max_length=200)] = ""
    labels: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=63)], Annotated[str, Field(max_length=200)]], Field(max_length=64)
    ] = {}
    """Replaces all labels."""
    priority: Literal["low", "normal", "high"] = "normal"
    """``high`` is the admin's to give."""


def job_view(row: JobRow) -> JobView:
    """A stored job as clients see it."""
    job = row.job
    place = None if row.place is None else QueuePlace(position=row.place.position, waiting_for=row.place.waiting_for)
    return JobView(
        id=job.id,
        name=job.name,
        owner=row.owner,
        labels=job.labels,
        status=Status(job.status),
        terminal=job.status in FINAL,
        status_reason=job.status_reason,
        stop_requested=job.stop_requested,
        priority=PRIORITY_NAMES[job.priority],
        spec=job.spec,
        progress=None if job.progress is None else ProgressView.model_validate(job.progress),
        queue=place,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        crashes=job.crashes,
        worker=job.worker_id,
        devices=job.devices,
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        gpu_seconds=job.gpu_seconds,
        result=job.result,
        error=None if job.error is None else JobFailure.model_validate(job.error),
        version=job.version,
    )


def event_view(event: JobEvent) -> EventView:
    """A stored event as clients see it."""
    return EventView(seq=event.seq, type=event.type, message=event.message, data=event.data, created_at=event.created_at)


def artifact_view(artifact: Artifact) -> ArtifactView:
    """A stored file as clients see it."""
    return ArtifactView(name=artifact.name, size=artifact.size, sha256=artifact.sha256, media_type=artifact.media_type)


def explanation(session: Session, row: JobRow, *, lease_seconds: float) -> Explanation:
    """Why a job is where it is."""
    job = row.job
    workers = [worker for worker in live_workers(session, lease_seconds=lease_seconds) if worker.pool == job.pool]
    blocked_by = open_needs(session, job) if job.status == Status.WAITING else []
    waits = f"job {', '.join(blocked_by)} to succeed" if blocked_by else None
    return Explanation(
        job_id=job.id,
        status=Status(job.status),
        reason=job.status_reason,
        pool=job.pool,
        position=None if row.place is None else row.place.position,
        ahead=None if row.place is None else row.place.position - 1,
        waiting_for=waits if row.place is None else row.place.waiting_for,
        blocked_by=blocked_by,
        live_workers=len(workers),
        suitable_workers=len(suitable(job, workers)),
    )
