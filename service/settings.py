"""The only reader of the environment."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_MOST_LOADERS = 8
_BUCKET_PREFIX = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/.:*?\[\]{}#\\][^/:*?\[\]{}#\\]*)*/?$"


class _CudaSettings(BaseSettings):
    """CUDA's own, of which an empty one is not one that is not set."""

    visible_devices: str | None = Field(default=None, validation_alias="CUDA_VISIBLE_DEVICES")


class Settings(BaseSettings):
    """Every setting of API and worker; each is an environment variable ``STILLHOUSE_<NAME>`` unless told otherwise.

    A variable that is empty counts as one that is not set.
    """

    model_config = SettingsConfigDict(
        env_prefix="STILLHOUSE_", env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True
    )

    database_url: str = Field(default="", validation_alias="DATABASE_URL")
    """``postgresql://user:password@host/name``."""
    database_direct_url: str = Field(default="", validation_alias="DATABASE_DIRECT_URL")
    """The server's own address where that is a pooler's; migrations use it. The same by default."""
    database_seconds: float = Field(default=5.0, gt=0)
    """How long the API waits for an answer of the database before it says 503; workers and sweeps wait four times as long."""
    redis_url: str = Field(default="", validation_alias="REDIS_URL")
    """``redis://host:6379/0``."""
    store: str = ""
    """Where artifacts and datasets live: ``file:///path`` or ``s3://bucket/prefix``."""
    store_seconds: float = Field(default=10.0, gt=0)
    """How long the API waits for an answer of the store before it says 503."""
    scratch: Path | None = None
    """Folder of the worker for running jobs' files; the system's temporary folder by default."""
    teacher_cache: Path | None = None
    """Folder of the worker for the outputs of teachers on datasets, kept for later jobs; ``teacher-cache`` in ``scratch`` by
    default, and nothing is kept where neither is set. Whatever is in it may be removed at any time."""
    network_cache: Path | None = None
    """Folder of the worker for networks that it has fetched, kept for later jobs, which all workers of a host may share;
    ``network-cache`` in ``scratch`` by default. Where neither is set they are kept until the worker ends."""
    network_cache_bytes: int = Field(default=100 * 2**30, gt=0)
    """Most bytes of networks that are kept there; the least recently used are removed first, and none that a job uses."""
    data_cache: Path | None = None
    """Folder of the worker for datasets that it has fetched or converted, kept for later jobs, which all workers of a host may
    share; ``data-cache`` in ``scratch`` by default. Where neither is set they are kept until the worker ends."""
    data_cache_bytes: int = Field(default=200 * 2**30, gt=0)
    """Most bytes of datasets that are kept there; the least recently used are removed first, and none that a job uses."""

    loaders: int | None = Field(default=None, ge=0, le=64)
    """Processes of each rank of a job that make batches of images and sound on disk; by default as many as the rank has CPU
    threads, but one, 8 at most; with 0 the trainer makes them itself."""

    cuda_visible_devices: str | None = Field(
        default_factory=lambda: _CudaSettings().visible_devices, validation_alias="CUDA_VISIBLE_DEVICES"
    )
    """CUDA's own variable: which of the host's GPUs a worker may see, by index or UUID; all by default, none if it is empty."""

    heartbeat_seconds: float = Field(default=5.0, gt=0)
    """How often a worker renews the lease of each job that it runs."""
    lease_seconds: float = Field(default=45.0, gt=0)
    """How long a job stays a silent worker's."""
    lease_outage_seconds: float = Field(default=86_400.0, ge=0)
    """How long a trainer goes on past its lease while the database does not answer; later its job goes on from its last
    checkpoint."""
    sweep_seconds: float = Field(default=5.0, gt=0)
    """How often each process looks for expired leases and forgotten jobs."""
    hub_seconds: float = Field(default=600.0, ge=0)
    """How long a job waits on its devices for a Hub that is away, before another job may have them."""
    stop_grace_seconds: float = Field(default=60.0, gt=0)
    """How long a trainer may take to checkpoint and end after a stop was requested, before it is killed."""

    preflight: bool = True
    """Whether a job is checked, by one step on a few rows, before it waits for devices."""
    preflight_seconds: float = Field(default=120.0, gt=0)
    """How long that may take; a job whose check takes longer waits unchecked."""

    pools: list[str] = ["default"]
    """Pools that jobs may name before a worker has served them, as a JSON list."""
    worker_memory_seconds: float = Field(default=7 * 86_400.0, gt=0)
    """How long a worker that went away counts as one that may come back: a job that only such a one could hold is not
    refused, and it is still listed."""
    usage_half_life_seconds: float = Field(default=7 * 86_400.0, gt=0)
    """After how long what a user used counts half in the fair share."""
    entry_seconds: float = Field(default=600.0, ge=0)
    """Running time that a start is charged with at once; what was too much of it is given back at the end."""
    cpu_slot_charge: float = Field(default=0.1, gt=0)
    """What a second of a CPU slot counts in the fair share, in GPU-seconds."""
    promote_after_seconds: float = Field(default=86_400.0, gt=0)
    """After so long a wait a job rises one class."""
    reserve_after_seconds: float = Field(default=600.0, ge=0)
    """After so long a wait a host is kept free for the first job in the queue that does not fit anywhere."""
    queue_picture_seconds: float = Field(default=1.0, ge=0)
    """Age that a snapshot of the queue may have when the API computes places and expected starts from it; if it takes longer than
    a tenth of a second to compute, ten times as long as that."""

    secret_key: SecretStr = SecretStr("")
    """What users' secrets are encrypted with, on API and workers alike: 32 random bytes in URL-safe base64. Without it none are
    taken."""

    max_upload_bytes: int = Field(default=20 * 2**30, gt=0)
    """Largest dataset or model upload."""
    keep_originals: bool = False
    """Whether uploaded dataset files are kept beside the shards that they are converted to, and that all jobs read."""
    max_unfinished_uploads: int = Field(default=20, gt=0)
    """Most uploads of models' folders that a user may have begun and not finished; one that rests for a day ends."""
    max_request_bytes: int = Field(default=2**20, gt=0)
    """Largest body of any other request."""
    requests_per_second: float = Field(default=200.0, gt=0)
    """Sustained rate of one API key, on one API process; bursts of twice as many pass."""
    file_roots: list[Path] = []
    """Folders under which a spec may name ``file:PATH``, as a JSON list, of API and workers alike; none by default."""
    data_urls: list[Annotated[str, Field(pattern=_BUCKET_PREFIX)]] = []
    """Buckets, or folders of them, of which a spec may name ``s3://BUCKET/PATH``, as a JSON list such as
    ``["s3://lab", "s3://shared/public"]``, of API and workers alike; none by default."""

    @property
    def patient_database_seconds(self) -> float:
        """How long workers and sweeps wait: nobody waits for them, and their statements read more."""
        return 4 * self.database_seconds

    @property
    def direct_database_url(self) -> str:
        """The address of the server itself."""
        return self.database_direct_url or self.database_url

    def loaders_of(self, num_threads: int) -> int:
        """The number of loader processes of a rank that has so many CPU threads."""
        return max(0, min(_MOST_LOADERS, num_threads - 1)) if self.loaders is None else self.loaders

    @property
    def teacher_cache_folder(self) -> Path | None:
        """Where that is."""
        return self.teacher_cache or (self.scratch / "teacher-cache" if self.scratch is not None else None)

    @property
    def network_cache_folder(self) -> Path | None:
        """Where that is."""
        return self.network_cache or (self.scratch / "network-cache" if self.scratch is not None else None)

    @property
    def data_cache_folder(self) -> Path | None:
        """Where that is."""
        return self.data_cache or (self.scratch / "data-cache" if self.scratch is not None else None)


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
