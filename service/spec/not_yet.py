"""What a spec may say that no trainer does yet: refused with its place, never left out in silence. Pure, no torch.

Whoever makes one of these true takes it out of here.
"""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.job import JobSpec
from service.spec.training import TrainingSpec


def not_yet_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds the fields that a trainer would not carry out."""
    found = [*_student(spec), *_teachers(spec), *_training("training", spec.training)]
    yield from (FieldError(pointer=f"/{place}", message=f"no trainer does this yet: {remedy}") for place, remedy in found)


def _student(spec: JobSpec) -> Iterator[tuple[str, str]]:
    if spec.student.adapter is not None:
        yield "student/adapter", "leave it out"


def _teachers(spec: JobSpec) -> Iterator[tuple[str, str]]:
    for place, teacher in spec.teachers.items():
        if teacher.training is not None:
            yield from _training(f"{place}/training", teacher.training)


def _training(place: str, training: TrainingSpec) -> Iterator[tuple[str, str]]:
    for name in ("micro_batch", "gradient_checkpointing"):
        default = TrainingSpec.model_fields[name].default
        if getattr(training, name) != default and not (name == "gradient_checkpointing" and not training.gradient_checkpointing):
            yield f"{place}/{name}", "leave it out"
