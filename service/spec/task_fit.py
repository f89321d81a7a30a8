"""The checks that one task alone has, beside those that ``TaskInfo`` says. Pure, no torch."""

from collections.abc import Callable, Iterable

from service.errors import FieldError
from service.spec.embedding_fit import embedding_faults
from service.spec.job import JobSpec
from service.spec.language_fit import language_faults
from service.spec.tasks import TaskName

TASK_CHECKS: dict[TaskName, Callable[[JobSpec], Iterable[FieldError]]] = {
    "sentence-embedding": embedding_faults,
    "causal-lm": language_faults,
}
"""By task, what finds the faults of a spec of it."""
