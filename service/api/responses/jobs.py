"""Requests and responses about a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from service import queries
from service.api.responses.queue import BlockerView, FairShareView, StartView, blocker_view, fair_share_view, start_view
from service.api.responses.shape import Page, View
from service.errors import JobFailure
from service.lifecycle import FINAL, Priority, Status
from service.queries import JobRow
from service.scheduling.explain import Place, QueueStatus, open_needs
from service.scheduling.policy import Share
from service.scheduling.queue_status_cache import QueueStatusCache
from service.scheduling.snapshot import need_of, shares
from service.spec.estimate import Estimate
from service.spec.job import JobId
from service.spec.names import OneLine
from service.spec.warning_message import WarningMessage
from service.tables import Job


class ProgressView(View):
    """Progress of the current phase."""

    phase: str
    """checking, teacher, cache, student, control, evaluation or export."""
    step: int | None = None
    """Optimizer steps that this phase has completed."""
    total_steps: int | None = None
    """Optimizer steps of the whole phase; null in a phase that does not count steps."""
    epoch: int | None = None
    """The pass over the training split that the phase is in, from 1."""
    fraction: float | None = None
    """Completed share of the phase, 0 to 1."""
    samples_per_second: float | None = None
    """Training samples a second, over the last steps."""
    eta_seconds: float | None = None
    """Estimated seconds until the phase ends."""
    message: str | None = None
    """What the phase does, for people."""


class QueuePlace(View):
    """The place of a queued job in its pool, as of a moment ago. Its changes do not change the job's version."""

    position: int
    """1 starts next if it fits; 1001 stands for every place after the first thousand."""
    waiting_for: str
    """What blocks it, in words."""
    expected_start: StartView | None
    """Null if too little is known, and after the first hundred jobs."""


class JobHead(View):
    """A job as its version says it, without the two fields that are sent as the database has them."""

    id: str
    """``job_`` and 26 characters; a later job has a greater id."""
    object: Literal["job"] = "job"
    """The type of the object."""
    name: str
    """For people; need not be unique."""
    owner: str
    """The name of the user who submitted it."""
    labels: dict[str, str]
    """Labels by which jobs can be listed."""
    status: Status
    """Its state. A client that waits for the end reads ``terminal``."""
    terminal: bool
    """Whether this state is final: the job will never run again."""
    status_reason: str
    """Why it is in this state, in words."""
    stop_requested: str | None
    """cancel, pause or preempt, while a running job is being stopped."""
    priority: Literal["low", "normal", "high"]
    """Waiting jobs of a higher priority start first."""
    progress: ProgressView | None
    """Its progress; null before it has started."""
    attempt: int
    """How often the job was started."""
    max_attempts: int
    """The number of crashes after which the job fails."""
    crashes: int
    """Attempts that ended by a crash or a lost worker rather than by a request."""
    worker: str | None
    """The worker of the current or last attempt."""
    devices: list[str] | None
    """The devices of that worker that it uses; null unless it runs."""
    created_at: datetime
    """When it was submitted."""
    queued_at: datetime | None
    """When it was first ready to start; null until then."""
    started_at: datetime | None
    """Start of the current or last attempt."""
    finished_at: datetime | None
    """When it reached its final state."""
    gpu_seconds: float
    """Seconds multiplied by the number of GPUs, over all attempts that have ended."""
    estimate: Estimate | None
    """What its preflight check measured before it was queued; null for a job that was not checked."""
    warnings: list[WarningMessage]
    """What its spec says without effect, what of its data takes no part: told when it is submitted and by its check. Those of its
    result are in ``result``."""
    error: JobFailure | None
    """Why it failed; null unless it did."""
    version: int
    """Increases with each change; the ETag is this number in quotes."""

    @classmethod
    def of(cls, job: Any, *, owner: str) -> "JobHead":
        """Of a job's row, and its owner's name."""
        return JobHead(**_head(job, owner))


class JobView(JobHead):
    """A job."""

    queue: QueuePlace | None
    """Null unless queued."""
    spec: dict[str, Any]
    """The complete spec: submitting it again repeats the job."""
    result: dict[str, Any] | None
    """The report's headline figures."""


class JobPage(Page[JobView]):
    """Jobs, newest first."""


class Explanation(View):
    """Why a job is in its state."""

    object: Literal["explanation"] = "explanation"
    """The type of the object."""
    job_id: str
    """The job."""
    status: Status
    """Its state."""
    reason: str
    """Why it is in this state, in words."""
    pool: str
    """The pool whose workers can take it."""
    position: int | None
    """Its place in the pool's queue, 1 starts next; null unless queued."""
    ahead: int | None
    """Queued jobs of the pool that start earlier."""
    waiting_for: str | None
    """What blocks it, in words; null if it runs or has ended."""
    blocker: BlockerView | None
    """The same for programs; null unless queued."""
    needs: str
    """The devices and the memory of a host that it uses while it runs."""
    fair_share: FairShareView | None
    """The terms of its owner's fair share; null unless queued."""
    expected_start: StartView | None
    """Null unless queued, if too little is known, and after the first hundred jobs."""
    blocked_by: list[str]
    """Unfinished jobs that it depends on."""
    live_workers: int
    """Workers of the pool with a recent heartbeat."""
    suitable_workers: int
    """Those of them that take jobs and could run it if their devices were free."""


class CancelRequest(View):
    """How to cancel."""

    model_config = ConfigDict(extra="forbid")

    keep: Literal["best", "last", "none"] = "last"
    """The checkpoint of a running job that is kept as a usable student. A job that does not run keeps none: resume it first."""


class JobEdit(View):
    """The fields of a job that can be changed."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[OneLine, Field(max_length=200)] = ""
    """The new name."""
    labels: Annotated[
        dict[Annotated[OneLine, Field(min_length=1, max_length=63)], Annotated[OneLine, Field(max_length=200)]],
        Field(max_length=64),
    ] = {}
    """Replaces all labels."""
    priority: Literal["low", "normal", "high"] = "normal"
    """Only admins can set ``high``."""
    depends_on: Annotated[list[JobId], Field(max_length=100)] = []
    """Replaces the jobs that it depends on, before it has started. None of them may depend on this job."""


def job_view(row: JobRow) -> JobView:
    """Builds the response for a stored job."""
    job = row.job
    return JobView(**_head(job, row.owner), queue=queue_place(row.place), spec=job.spec, result=job.result)


def queue_place(place: Place | None) -> QueuePlace | None:
    """Builds the response for a job's place in the queue."""
    if place is None:
        return None
    return QueuePlace(position=place.position, waiting_for=place.blocker.message, expected_start=start_view(place))


def _head(job: Any, owner: str) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "owner": owner,
        "labels": job.labels,
        "status": Status(job.status),
        "terminal": job.status in FINAL,
        "status_reason": job.status_reason,
        "stop_requested": job.stop_requested,
        "priority": Priority(job.priority).word,
        "progress": job.progress,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "crashes": job.crashes,
        "worker": job.worker_id,
        "devices": job.devices,
        "created_at": _utc(job.created_at),
        "queued_at": _utc(job.queued_at),
        "started_at": _utc(job.started_at),
        "finished_at": _utc(job.finished_at),
        "gpu_seconds": job.gpu_seconds,
        "estimate": job.estimate,
        "warnings": job.warnings,
        "error": job.error,
        "version": job.version,
    }


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC)


@dataclass(frozen=True)
class Answer:
    """A job as those who wait for it get it: written once for all of them."""

    version: int
    body: bytes


def job_answer(queue_status_cache: QueueStatusCache, session: Session, job_id: str) -> Answer:
    """Reads and writes a job's answer. Raises NotFound."""
    row = queries.job_row(session, job_id, queue_status_cache)
    return Answer(row.job.version, job_view(row).model_dump_json().encode())


def explanation(session: Session, row: JobRow, queue_status_cache: QueueStatusCache) -> Explanation:
    """Builds the explanation of a job's state."""
    job, place = row.job, row.place
    queue_status = queue_status_cache.of(session, job.pool)
    blocked_by = open_needs(session, job) if job.status == Status.WAITING else {}
    return Explanation(
        job_id=job.id,
        status=Status(job.status),
        reason=job.status_reason,
        pool=job.pool,
        position=None if place is None else place.position,
        ahead=None if place is None else place.position - 1,
        waiting_for=_waits_for(job, blocked_by, queue_status) if place is None else place.blocker.message,
        blocker=None if place is None else blocker_view(place.blocker),
        needs=str(need_of(job)),
        fair_share=None if place is None else fair_share_view(_share(session, job, queue_status)),
        expected_start=None if place is None else start_view(place),
        blocked_by=list(blocked_by),
        live_workers=len(queue_status.hosts),
        suitable_workers=len(queue_status.suitable(need_of(job))),
    )


def _share(session: Session, job: Job, queue_status: QueueStatus) -> Share:
    """The fair share of a job's owner, who may be newer than the snapshot of the queue."""
    return queue_status.shares.get(job.owner_id) or shares(session, [job.owner_id], now=queue_status.as_of)[job.owner_id]


def _waits_for(job: Job, blocked_by: Mapping[str, Status], queue_status: QueueStatus) -> str | None:
    """Says what a job that is neither queued nor running waits for."""
    match Status(job.status):
        case Status.WAITING:
            needed = (f"{job_id}, which is {status}," for job_id, status in blocked_by.items())
            return f"{'job' if len(blocked_by) == 1 else 'jobs'} {' and '.join(needed)} to succeed"
        case Status.CHECKING if job.lease_expires_at is not None:
            return "the end of its check: one step on a few rows, which a worker takes now"
        case Status.CHECKING if all(host.draining for host in queue_status.hosts):
            return (
                f"its check: one step on a few rows, by a worker of its pool, and pool {job.pool!r} has none that takes jobs: "
                f"start one with `stillhouse worker --pool {job.pool}`"
            )
        case Status.CHECKING:
            return "its check: one step on a few rows, by a worker of its pool"
        case Status.PAUSED:
            return f"somebody to resume it: POST /v1/jobs/{job.id}/resume, or stillhouse resume {job.id}"
    return None
