"""What a spec may say that no trainer does yet: refused with its place, never left out in silence. Pure, no torch.

Whoever makes one of these true takes it out of here.
"""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.job import JobSpec


def not_yet_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds the fields that a trainer would not carry out."""
    found = _student(spec)
    yield from (FieldError(pointer=f"/{place}", message=f"no trainer does this yet: {remedy}") for place, remedy in found)


def _student(spec: JobSpec) -> Iterator[tuple[str, str]]:
    if spec.student.adapter is not None:
        yield "student/adapter", "leave it out"
