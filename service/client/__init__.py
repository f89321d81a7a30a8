"""The Python client.

    from stillhouse import Client

    with Client() as client:
        job = client.submit({"task": "image-classification", ...})
        for snapshot in client.watch(job.id):
            print(snapshot.status, snapshot.progress)
        client.download(job.id, "out", names=["student"])

The client needs only httpx and pydantic: importing it loads neither the service nor torch. Errors:

    ClientError
     ├── InvalidId            a string that cannot be an id (also a ValueError)
     ├── Unreachable          no service answers at the address
     ├── WaitTimeout          the job did not end in time (also a TimeoutError)
     ├── CorruptDownload      the SHA-256 differs from the recorded one
     ├── PreviewFailed        no preview can be made of the spec; ``failure`` says why
     └── ApiError             the service returned a problem (RFC 9457)
          ├── InvalidSpec     ``faults`` lists every error of the spec
          ├── Unauthenticated
          ├── Forbidden
          ├── NotFound
          ├── Conflict
          ├── PreconditionFailed
          ├── TooLarge
          ├── TooManyRequests
          ├── QueueLimitReached
          └── ServiceUnavailable
"""

from service.client.client import Client
from service.client.errors import (
    ApiError,
    ClientError,
    Conflict,
    CorruptDownload,
    Forbidden,
    InvalidId,
    InvalidSpec,
    NotFound,
    PreconditionFailed,
    PreviewFailed,
    QueueLimitReached,
    ServiceUnavailable,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unreachable,
    WaitTimeout,
)
from service.client.queue import Blocker, Explanation, FairShare, Queue, RunningJob, Usage, User, WaitingJob, Worker
from service.client.resources import (
    Artifact,
    CheckedSpec,
    Dataset,
    DatasetFacts,
    Event,
    Job,
    JobProgress,
    JobWarning,
    Key,
    Lengths,
    Me,
    MetricSeries,
    Model,
    ModelUses,
    NewKey,
    SharedRows,
    Start,
)

__all__ = [
    "ApiError",
    "Artifact",
    "Blocker",
    "CheckedSpec",
    "Client",
    "ClientError",
    "Conflict",
    "CorruptDownload",
    "Dataset",
    "DatasetFacts",
    "Event",
    "Explanation",
    "FairShare",
    "Forbidden",
    "InvalidId",
    "InvalidSpec",
    "Job",
    "JobProgress",
    "JobWarning",
    "Key",
    "Lengths",
    "Me",
    "MetricSeries",
    "Model",
    "ModelUses",
    "NewKey",
    "NotFound",
    "PreconditionFailed",
    "PreviewFailed",
    "Queue",
    "QueueLimitReached",
    "RunningJob",
    "ServiceUnavailable",
    "SharedRows",
    "Start",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unreachable",
    "Usage",
    "User",
    "WaitTimeout",
    "WaitingJob",
    "Worker",
]
