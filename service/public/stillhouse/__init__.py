"""The import package: everything that a program of a user imports.

    from stillhouse import Client, load_network

    with Client() as client:
        job = client.wait(client.submit(Path("job.yaml")).id)
        client.download(job.id, "out", names=["student"])
    student = load_network(Path("out/student"))

A name is imported when it is first used: the client needs httpx and pydantic alone, and only ``load_network`` and what belongs to
it need PyTorch, which ``pip install 'stillhouse[worker]'`` installs. The code is that of ``service`` and ``worker``, under which
the service runs itself; nothing is defined here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.client import (
        ApiError,
        Artifact,
        Blocker,
        CheckedSpec,
        Client,
        ClientError,
        Conflict,
        CorruptDownload,
        Dataset,
        DatasetFacts,
        Event,
        Explanation,
        FairShare,
        Forbidden,
        InvalidId,
        InvalidSpec,
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
        NotFound,
        PreconditionFailed,
        PreviewFailed,
        Queue,
        QueueLimitReached,
        RunningJob,
        ServiceUnavailable,
        SharedRows,
        Start,
        TooLarge,
        TooManyRequests,
        Unauthenticated,
        Unreachable,
        Usage,
        User,
        WaitingJob,
        WaitTimeout,
        Worker,
    )
    from service.formats import Waveform
    from service.spec import JobSpec
    from service.spec.report import Report
    from worker.models import LoadedNetwork, UnfitArchitecture, UnreadableNetwork
    from worker.tasks import load_network

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
    "JobSpec",
    "JobWarning",
    "Key",
    "Lengths",
    "LoadedNetwork",
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
    "Report",
    "RunningJob",
    "ServiceUnavailable",
    "SharedRows",
    "Start",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "UnfitArchitecture",
    "Unreachable",
    "UnreadableNetwork",
    "Usage",
    "User",
    "WaitTimeout",
    "WaitingJob",
    "Waveform",
    "Worker",
    "load_network",
]

_MODULES = {
    "JobSpec": "service.spec",
    "LoadedNetwork": "worker.models",
    "Report": "service.spec.report",
    "UnfitArchitecture": "worker.models",
    "UnreadableNetwork": "worker.models",
    "Waveform": "service.formats",
    "load_network": "worker.tasks",
}
"""Where a name is defined; the others are the client's."""


def __getattr__(name: str) -> Any:
    """Imports a name at its first use (PEP 562).

    Raises:
        ImportError: the packages that it needs are not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULES.get(name, "service.client")), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"stillhouse.{name} needs the package {error.name!r}, which is not installed: pip install 'stillhouse[worker]'",
            name=error.name,
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
