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
    false,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.lifecycle import FINAL, Status

_STATUSES = ", ".join(f"'{status}'" for status in Status)
_FINAL = ", ".join(f"'{status}'" for status in sorted(FINAL))


class Table(DeclarativeBase):
    """Base of all tables: named constraints, so that migrations can name them; aware UTC times."""

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
    __table_args__ = (
        CheckConstraint("share_weight > 0", name="share_weight"),
        CheckConstraint("max_running_jobs >= 0 AND max_queued_jobs >= 0", name="limits"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    share_weight: Mapped[float] = mapped_column(server_default=text("1"))
    """A user of weight 2 may use twice as much as one of weight 1 before the other's jobs start first."""
    max_running_jobs: Mapped[int | None]
    """Jobs that may run at once, in all pools; None for any number."""
    max_queued_jobs: Mapped[int | None]
    """Jobs that may wait at once, in whatever state; None for any number."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Usage(Table):
    """A user's usage for the fair share: GPU-seconds that lose half of their weight in each half-life."""

    __tablename__ = "usage"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    amount: Mapped[float]
    """The decayed amount at ``as_of``."""
    as_of: Mapped[datetime]


class UsageHour(Table):
    """A user's usage in one hour, for the account: nothing decays here."""

    __tablename__ = "usage_hours"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    """Start of the hour."""
    gpu_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    """Seconds times GPUs held."""
    cpu_slot_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    """Seconds times CPU slots held."""
    jobs: Mapped[int] = mapped_column(server_default=text("0"))
    """Jobs that started for the first time."""


class Sweep(Table):
    """Start of the last sweep of any process: one row."""

    __tablename__ = "sweeps"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    began_at: Mapped[datetime]


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
    """An uploaded dataset; its shards are in the store, whole, before this row exists."""

    __tablename__ = "datasets"
    # What an index holds is short, and the names of many columns are not.
    __table_args__ = (Index("uq_datasets_content", "sha256", "task", "input_column", text("md5(target_column)"), unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    task: Mapped[str]
    filename: Mapped[str]
    path: Mapped[str | None]
    """Key in the store of the uploaded file itself; NULL where it was not kept."""
    files: Mapped[list[dict[str, Any]] | None]
    """name, size, sha256, media_type and path (key in the store) of its shards and of their index; NULL of one that was uploaded
    before there were shards: it is the file at ``path``."""
    sha256: Mapped[str]
    """Of the uploaded file, as its ``bytes`` are."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    input_column: Mapped[str] = mapped_column(server_default="")
    """Empty: that of the task."""
    target_column: Mapped[str] = mapped_column(server_default="")
    """One, or several with commas between; empty: those of the task."""
    info: Mapped[dict[str, Any]]
    """A ``service.spec.data.DatasetInfo``."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Table):
    """A network that jobs may begin with: an uploaded one, or what a finished job left."""

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("job_id", "part"),
        CheckConstraint("part IN ('student', 'teacher')", name="part"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    handle: Mapped[str | None] = mapped_column(unique=True)
    """What ``model:NAME`` in a spec finds it by."""
    task: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    part: Mapped[str] = mapped_column(server_default="student")
    """Which network of its job it is: the student, or the teacher that the job trained."""
    classes: Mapped[list[str]]
    input_shape: Mapped[list[int]]
    """[channels, height, width] of the images that it was trained on, [1, frames, mel bands] of spectrograms; else empty."""
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    dtype: Mapped[str | None]
    """The number format of most of its weights, as specs name it."""
    base: Mapped[str | None]
    """The network that it was made of, as its card or its job's spec names it."""
    licence: Mapped[str | None]
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
    """Jobs that the worker may run at once."""
    devices: Mapped[list[dict[str, Any]]]
    """name (``cpu:0`` or ``cuda:0``), kind and memory_gib of each; of a CPU slot that of its host, which all slots share."""
    draining: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the worker takes no more jobs."""
    drain_finishes: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the jobs on a draining worker may run to their end; otherwise they go back to the queue from a checkpoint."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stopped_at: Mapped[datetime | None]


class Job(Table):
    """A job and its current attempt."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({_STATUSES})", name="status"),
        CheckConstraint(
            "(status = 'running') <= (lease_expires_at IS NOT NULL AND worker_id IS NOT NULL)"
            " AND (lease_expires_at IS NOT NULL) <= (status IN ('running', 'checking'))",
            name="running_has_lease",
        ),
        CheckConstraint("(status = 'queued') = (waiting_since IS NOT NULL)", name="queued_since"),
        CheckConstraint("reserved_worker_id IS NULL OR status = 'queued'", name="only_queued_reserves"),
        CheckConstraint(f"(status IN ({_FINAL})) = (finished_at IS NOT NULL)", name="final_has_end"),
        CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="failed_has_error"),
        CheckConstraint("stop_requested IS NULL OR status = 'running'", name="stop_only_while_running"),
        CheckConstraint("attempt >= 0 AND crashes >= 0 AND max_attempts > 0", name="attempts"),
        Index(
            "uq_jobs_idempotency_key",
            *("owner_id", "idempotency_key"),
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),  # and no list of an owner's jobs is read by it
        ),
        Index(
            "ix_jobs_queue",
            *("pool", "queue_class", "owner_id", "shape", "priority", "queued_at", "id"),
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_promotion",
            "waiting_since",
            postgresql_where=text("status = 'queued' AND queue_class = priority AND priority > 0"),
        ),
        Index("ix_jobs_reserved", "pool", postgresql_where=text("reserved_worker_id IS NOT NULL")),
        Index("ix_jobs_high", "pool", postgresql_where=text("status = 'queued' AND priority = 0")),
        Index(
            "ix_jobs_checking",
            *("pool", "owner_id", "priority", "id"),
            postgresql_where=text("status = 'checking' AND lease_expires_at IS NULL"),
        ),
        Index("ix_jobs_in_check", "owner_id", postgresql_where=text("status = 'checking' AND lease_expires_at IS NOT NULL")),
        Index("ix_jobs_lease", "lease_expires_at", postgresql_where=text("lease_expires_at IS NOT NULL")),
        Index("ix_jobs_running", "worker_id", postgresql_where=text("status = 'running'")),
        Index("ix_jobs_running_owner", "owner_id", postgresql_where=text("status = 'running'")),
        Index("ix_jobs_finished", "pool", "finished_at", postgresql_where=text("status = 'succeeded'")),
        Index("ix_jobs_untidied", "finished_at", postgresql_where=text("NOT tidied")),
        Index("ix_jobs_unstarted", "owner_id", postgresql_where=text("status IN ('checking', 'waiting', 'queued')")),
        Index("ix_jobs_waiting", "id", postgresql_where=text("status = 'waiting'")),
        Index("ix_jobs_status", "status", "id"),
        Index("ix_jobs_owner", "owner_id", "id"),
        Index("ix_jobs_owner_status", "owner_id", "status", "id"),
        Index("ix_jobs_dataset", "dataset_id", postgresql_where=text("dataset_id IS NOT NULL")),
        Index("ix_jobs_transfer", "transfer_id", postgresql_where=text("transfer_id IS NOT NULL")),
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
    """cancel, pause or preempt: a request that the supervisor reads with its next heartbeat."""
    stop_keep: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    """Grows with every change that a reader can see; the ETag."""
    last_event_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    pool: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    """0 high, 1 normal, 2 low: ascending order is starting order."""
    queue_class: Mapped[int] = mapped_column(SmallInteger)
    """The class that the job waits in: its priority, or one better after a long wait."""
    gpus: Mapped[int] = mapped_column(Integer)
    cpu_slots: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    """CPU slots that the job holds if ``gpus`` is 0."""
    min_gpu_memory_gib: Mapped[float | None]
    """Memory of each GPU, by the spec or by the estimate of the preflight."""
    resource_class: Mapped[str] = mapped_column("shape")
    """The devices that the job needs, as one word: jobs of one class fit wherever one of them does."""
    max_runtime_seconds: Mapped[int]
    """Limit of the running time of all attempts together."""

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """The fence: grows with each claim, and every write of a running job names it."""
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts that ended by the job's own doing; the job fails with the last of ``max_attempts``."""
    max_attempts: Mapped[int]
    losses: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts, or checks, that machines took from it since its last new checkpoint."""
    writes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The number of the last write of its attempt, which repeats one whose commit had no answer, and is made once."""
    worker_id: Mapped[str | None] = mapped_column(ForeignKey("workers.id"))
    devices: Mapped[list[str] | None]
    lease_expires_at: Mapped[datetime | None]
    """End of the lease of a running attempt, or of a check."""
    checks: Mapped[int] = mapped_column(server_default=text("0"))
    """The fence of a check: grows with each check that begins."""
    failed_checks: Mapped[int] = mapped_column(server_default=text("0"))
    """Checks that came to nothing by their own doing."""
    estimate: Mapped[dict[str, Any] | None]
    """Findings of the preflight: parameters, FLOPs, memory, steps."""
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    """``service.spec.warning_message.WarningMessage`` of the submission and of the preflight."""
    reserved_worker_id: Mapped[str | None] = mapped_column(ForeignKey("workers.id"))
    """The host whose devices are kept free for the job."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime | None]
    """Time at which the job was first ready to start: its age in the queue, which a preempted job keeps."""
    waiting_since: Mapped[datetime | None]
    """Time at which the job was last queued; None unless it is queued."""
    started_at: Mapped[datetime | None]
    """Start of the current or last attempt."""
    expected_end_at: Mapped[datetime | None]
    """Expected end of a running attempt, by its measured steps."""
    finished_at: Mapped[datetime | None]
    tidied: Mapped[bool] = mapped_column(server_default=false())
    """Whether the store was searched, after the end, for files that lost attempts left."""
    run_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    """Running time of the earlier attempts."""
    gpu_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    charged_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    """Running time of the current attempt that the owner's fair share was charged with; at first ahead of time."""
    accounted_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    """Running time of the current attempt that is in the owner's account."""

    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    transfer_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    """The dataset of its transfer rows."""

    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str | None]


class JobLabel(Table):
    """A label of a job, as in its row, indexed for filters."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("ix_job_labels_found", "key", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class JobDependency(Table):
    """``job_id`` starts only after ``needs_job_id`` succeeded."""

    __tablename__ = "job_dependencies"
    __table_args__ = (CheckConstraint("job_id <> needs_job_id", name="another"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    needs_job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)


class JobTeacher(Table):
    """``job_id`` learns from ``model_id``, or begins with it; until it has finished, the model stays."""

    __tablename__ = "job_teachers"
    __table_args__ = (Index("ix_job_teachers_model_id_job_id", "model_id", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)


class JobSource(Table):
    """The revision of a source that ``job_id`` began with: the commit of a Hub's branch, the digest of a folder."""

    __tablename__ = "job_sources"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[str]


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
    """A piece of the trainer's output, in order; bounded by the supervisor."""

    __tablename__ = "log_chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """Offset of the chunk's first byte in the job's whole log."""
    text: Mapped[str]
    size: Mapped[int]
    """Bytes of ``text`` in UTF-8."""


class StoreIdentity(Table):
    """The store that the files of all rows are in. One row."""

    __tablename__ = "store_identity"
    __table_args__ = (CheckConstraint("one", name="one"),)

    one: Mapped[bool] = mapped_column(primary_key=True, server_default=true())
    id: Mapped[str]
    """What its marker must say."""
    is_set_up: Mapped[bool] = mapped_column(server_default=false())
    """Whether a marker with this id was seen. Until then one may be written."""


class Blob(Table):
    """A file that uploaded models share, by what is in it. It stays while a row of :class:`ModelBlob` names it."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]
    """Key in the store, which no other blob had or will have."""
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelBlob(Table):
    """``model_id`` has a file with this content."""

    __tablename__ = "model_blobs"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), primary_key=True, index=True)


class ModelUpload(Table):
    """A folder that is being uploaded, file by file."""

    __tablename__ = "model_uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    task: Mapped[str | None]
    """None: the task that the folder states."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    touched_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    """When something of it arrived last."""


class ModelUploadFile(Table):
    """A file of the folder. Until its :class:`Blob` is there it is missing."""

    __tablename__ = "model_upload_files"

    upload_id: Mapped[str] = mapped_column(ForeignKey("model_uploads.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(index=True)
    size: Mapped[int] = mapped_column(BigInteger)


class ModelUploadPart(Table):
    """Bytes of a file that has not arrived whole, from ``start`` on."""

    __tablename__ = "model_upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("model_uploads.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str]


class Preview(Table):
    """Some samples of a spec as its networks read them: asked for by a user, made by a worker, kept for a day."""

    __tablename__ = "previews"
    __table_args__ = (
        Index("ix_previews_unmade", "pool", "id", postgresql_where=text("finished_at IS NULL")),
        Index("ix_previews_unmade_owner", "owner_id", postgresql_where=text("finished_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    pool: Mapped[str]
    spec: Mapped[dict[str, Any]]
    num_samples: Mapped[int]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """How often a worker has begun to make it."""
    lease_expires_at: Mapped[datetime | None]
    """None while no worker makes it."""
    result: Mapped[dict[str, Any] | None]
    """:class:`service.spec.preview.Preview` as JSON."""
    error: Mapped[dict[str, Any] | None]
    """:class:`service.errors.JobFailure` as JSON; None for one that was made."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    finished_at: Mapped[datetime | None]


class UserSecret(Table):
    """A secret of a user, encrypted."""

    __tablename__ = "user_secrets"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes]
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UnlistedFiles(Table):
    """Files in the store that no other row names, and when they are to be removed."""

    __tablename__ = "unlisted_files"

    prefix: Mapped[str] = mapped_column(primary_key=True)
    remove_at: Mapped[datetime] = mapped_column(index=True)


class Artifact(Table):
    """A file that a job published. Its bytes are in the store before this row exists."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_spent", "job_id", postgresql_where=text("kind = 'spent'")),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """``result``, listed over HTTP; ``checkpoint``, which the next attempt resumes from; ``spent``, a checkpoint that none will,
    whose file is still to be removed."""
    attempt: Mapped[int]
    path: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
