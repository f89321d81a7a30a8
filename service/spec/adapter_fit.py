"""Checks of a spec whose student is trained as an adapter. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.job import JobSpec


def adapter_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds what an adapter cannot hold."""
    if spec.student.adapter is not None and spec.evaluation.correct_bias:
        message = "an adapter has no biases of the outputs, and is to give the same student: leave correct_bias out"
        yield FieldError(pointer="/evaluation/correct_bias", message=message)
