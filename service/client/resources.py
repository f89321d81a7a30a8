"""Typed responses of the service. A newer service may send more: unknown fields are kept, enumerations are plain strings."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.errors import JobFailure


class Resource(BaseModel):
    """Base of all responses."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)


class JobProgress(Resource):
    """Progress of a job in its current phase."""

    phase: str
    step: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    fraction: float | None = None
    """Completed share of this phase, 0 to 1."""
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    """Estimated seconds until this phase ends."""
    message: str | None = None


class Start(Resource):
    """When a job should start: the median and the 90th percentile."""

    p50: datetime
    p90: datetime


class QueuePlace(Resource):
    """The place of a queued job."""

    position: int | None = None
    waiting_for: str | None = None
    """What blocks it, in words."""
    expected_start: Start | None = None


class JobWarning(Resource):
    """Something without effect, or data that take no part."""

    code: str
    message: str


class CheckedSpec(Resource):
    """A spec that could be submitted."""

    spec: dict[str, Any]
    """It with every default."""
    warnings: list[JobWarning] = []


class Job(Resource):
    """A job at one moment. If ``terminal``, it has reached its final state."""

    id: str
    name: str = ""
    owner: str | None = None
    labels: dict[str, str] = {}
    status: str
    terminal: bool
    status_reason: str | None = None
    stop_requested: str | None = None
    priority: str = "normal"
    spec: dict[str, Any] = {}
    progress: JobProgress | None = None
    queue: QueuePlace | None = None
    attempt: int = 0
    max_attempts: int | None = None
    worker: str | None = None
    devices: list[Any] | None = None
    created_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    gpu_seconds: float | None = None
    estimate: dict[str, Any] | None = None
    warnings: list[JobWarning] = []
    result: dict[str, Any] | None = None
    error: JobFailure | None = None
    version: int | None = None


class Event(Resource):
    """One event of a job."""

    seq: int
    type: str
    message: str | None = None
    data: dict[str, Any] | None = None
    created_at: datetime | None = None


class MetricSeries(Resource):
    """One metric's points, by step."""

    name: str
    points: list[tuple[int, float]]


class Artifact(Resource):
    """One file that a job wrote."""

    name: str
    size: int
    sha256: str
    media_type: str | None = None


class Lengths(Resource):
    """How long the inputs of a column are: by split, how many rows begin in each bin of ``edges``."""

    unit: str = ""
    edges: list[float] = []
    counts: dict[str, list[int]] = {}
    least: float = 0.0
    mean: float = 0.0
    most: float = 0.0


class SharedRows(Resource):
    """Rows of a split whose inputs another split has too; ``first`` are the places of some in both."""

    split: str
    also_in: str
    rows: int
    first: list[dict[str, dict[str, int | None]]] = []


class DatasetFacts(Resource):
    """What was counted of a dataset: lengths by input column, the rest by split."""

    lengths: dict[str, Lengths] = {}
    decoded_bytes: dict[str, int] = {}
    repeated_rows: dict[str, int] = {}
    shared_rows: list[SharedRows] = []


class Dataset(Resource):
    """An uploaded dataset; one that was asked for by its id has samples, and facts if it is not an old one."""

    id: str
    name: str = ""
    task: str
    splits: dict[str, int] = {}
    columns: Any = None
    classes: list[str] = []
    warnings: list[dict[str, str]] = []
    sha256: str | None = None
    bytes: int | None = None
    stored_bytes: int | None = None
    original_kept: bool = False
    samples: list[dict[str, Any]] = []
    facts: DatasetFacts | None = None


class ModelUses(Resource):
    """The jobs that use a model: how many, and the ids of some, unfinished ones first."""

    count: int = 0
    jobs: list[str] = []


class Model(Resource):
    """A stored network: an upload, or the student or the teacher of a finished job."""

    id: str
    handle: str | None = None
    name: str = ""
    task: str = ""
    job_id: str | None = None
    part: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    dtype: str | None = None
    base: str | None = None
    licence: str | None = None
    used_by: ModelUses = ModelUses()


class Key(Resource):
    """An API key, without the key itself."""

    id: str
    name: str = ""
    role: str
    user: str | None = None
    created_at: datetime | None = None
    revoked_at: datetime | None = None


class Me(Resource):
    """The user and the role of a key."""

    id: str
    name: str
    role: str
    key_id: str | None = None
    hub_token_set_at: datetime | None = None
    """When the token for the Hub was set."""


class NewKey(Key):
    """A key that was just created; ``key`` is shown only in this response."""

    key: str
