"""The kind of the network that an architecture builds, where a test is about architectures of several tasks."""

from typing import Any

from service.spec.transformers_fit import task_of
from worker.models import NetworkKind
from worker.tasks import TASKS


def kind_of(architecture: Any) -> NetworkKind | None:
    """That of the classifiers of its model type; None for one of the project's own."""
    task = task_of(architecture.model_type) if architecture.name == "transformers" else None
    return None if task is None else TASKS[task].network
