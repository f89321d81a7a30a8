"""The database tables. ("Model" means a network here, never a table.)

CHECK constraints repeat what ``lifecycle`` and ``jobs`` guarantee: a running job has a worker and a lease, a final one has an
end, only a failed one has an error.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.lifecycle import FINAL, Status

_STATUSES = ", ".join(f"'{status}'" for status in Status)
_FINAL = ", ".join(f"'{status}'" for status in sorted(FINAL))


class Table(DeclarativeBase):
    """What all tables share: named constraints, so that migrations can name them; aware UTC times."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(Integer),
        float: Double,
    }


class User(Table):
    """A person or a program of the team."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Table):
    """A key of a user. The key itself is shown once and stored as its SHA-256 alone."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("role IN ('viewer', 'member', 'admin')", name="role"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str]
    role: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Dataset(Table):
    """An uploaded dataset; its bytes are in the store, whole, before this row exists."""

    __tablename__ = "datasets"
    # What an index holds is short, and the names of many columns are not.
    __table_args__ = (Index("uq_datasets_content", "sha256", "task", "input_column", text("md5(target_column)"), unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    task: Mapped[str]
    filename: Mapped[str]
    path: Mapped[str]
    """Key in the store."""
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    input_column: Mapped[str] = mapped_column(server_default="")
    """Empty: that of the task."""
    target_column: Mapped[str] = mapped_column(server_default="")
    """One, or several with commas between; empty: those of the task."""
    info: Mapped[dict[str, Any]]
    """A ``service.spec.data.DatasetInfo``."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Table):
    """A network that may serve as a teacher: an uploaded one, or a finished job's student."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    task: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    classes: Mapped[list[str]]
    input_shape: Mapped[list[int]]
    """[channels, height, width] of the images that it was trained on, [1, frames, mel bands] of spectrograms; else empty."""
    files: Mapped[list[dict[str, Any]]]
    """name, size, sha256, media_type and path (key in the store) of each file of its folder."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Table):
    """A worker process that supervises trainers on one host's devices."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    pool: Mapped[str] = mapped_column(index=True)
    slots: Mapped[int]
    """Jobs that it may run at once."""
    devices: Mapped[list[dict[str, Any]]]
    """name (``cpu`` or ``cuda:0``), kind and memory_gib of each."""
    draining: Mapped[bool] = mapped_column(server_default=text("false"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stopped_at: Mapped[datetime | None]


class Job(Table):
    """A job and its current attempt."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({_STATUSES})", name="status"),
        CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL) AND (status = 'running') <= (worker_id IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint(f"(status IN ({_FINAL})) = (finished_at IS NOT NULL)", name="final_has_end"),
        CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="failed_has_error"),
        CheckConstraint("stop_requested IS NULL OR status = 'running'", name="stop_only_while_running"),
        CheckConstraint("attempt >= 0 AND crashes >= 0 AND max_attempts > 0", name="attempts"),
        UniqueConstraint("owner_id", "idempotency_key"),
        Index("ix_jobs_claim", "pool", "priority", "queued_at", "id", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_lease", "lease_expires_at", postgresql_where=text("status = 'running'")),
        Index("ix_jobs_waiting", "id", postgresql_where=text("status = 'waiting'")),
        Index("ix_jobs_status", "status", "id"),
        Index("ix_jobs_owner", "owner_id", "id"),
        Index("ix_jobs_labels", "labels", postgresql_using="gin"),
        Index("ix_jobs_dataset", "dataset_id", postgresql_where=text("dataset_id IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    labels: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    """The normalised spec."""

    status: Mapped[str]
    status_reason: Mapped[str]
    stop_requested: Mapped[str | None]
    """cancel or pause: a request that the supervisor reads with its next heartbeat."""
    stop_keep: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    """Grows with every change that a reader can see; the ETag."""
    last_event_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    pool: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    """0 high, 1 normal, 2 low: ascending order is starting order."""
    gpus: Mapped[int] = mapped_column(Integer)
    min_gpu_memory_gib: Mapped[float | None]

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """The fence: grows with each claim, and every write of a running job names it."""
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    max_attempts: Mapped[int]
    worker_id: Mapped[str | None] = mapped_column(ForeignKey("workers.id"))
    devices: Mapped[list[str] | None]
    lease_expires_at: Mapped[datetime | None]

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    """Start of the current or last attempt."""
    finished_at: Mapped[datetime | None]
    run_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    """Running time of the earlier attempts."""
    gpu_seconds: Mapped[float] = mapped_column(server_default=text("0"))

    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))

    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str | None]


class JobDependency(Table):
    """``job_id`` starts only after ``needs_job_id`` succeeded."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    needs_job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)


class JobTeacher(Table):
    """``job_id`` learns from ``model_id``; until it has finished, the model stays."""

    __tablename__ = "job_teachers"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True, index=True)


class JobEvent(Table):
    """Append-only: every transition with its reason, and the milestones of the training."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MetricPoint(Table):
    """A window's mean of one metric. A resumed attempt overwrites the points that it passes again."""

    __tablename__ = "metric_points"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float]


class LogChunk(Table):
    """A piece of what the trainer printed, in order; bounded by the supervisor."""

    __tablename__ = "log_chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """Offset of the chunk's first byte in the job's whole log."""
    text: Mapped[str]
    size: Mapped[int]
    """Bytes of ``text`` in UTF-8."""


class Artifact(Table):
    """A file that a job published. Its bytes are in the store before this row exists."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_checkpoint", "job_id", postgresql_where=text("kind = 'checkpoint'")),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """``result``, listed over HTTP, or ``checkpoint``, which the next attempt resumes from."""
    attempt: Mapped[int]
    path: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
