"""What a training may do to save memory, as far as its network's architecture tells. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.architectures import Architecture, TransformersNetwork
from service.spec.job import JobSpec
from service.spec.methods import TeacherAssistant
from service.spec.training import TrainingSpec


def memory_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds trainings that would divide batches that batch norm reads, or have a network compute twice that cannot."""
    between = spec.method.assistants if isinstance(spec.method, TeacherAssistant) else []
    trained: list[tuple[str, TrainingSpec, list[Architecture | None]]] = [
        ("training", spec.training, [spec.student.architecture, *between]),
        *(
            (f"{place}/training", teacher.training, [teacher.architecture])
            for place, teacher in spec.teachers.items()
            if teacher.training is not None
        ),
    ]
    for place, training, architectures in trained:
        ours = [each.name for each in architectures if each is not None and not isinstance(each, TransformersNetwork)]
        if ours and training.micro_batch is not None:
            yield FieldError(
                pointer=f"/{place}/micro_batch",
                message=f"the batch norm of {ours[0]} reads whole batches: leave this out and raise gradient_accumulation, "
                "or take an architecture without batch norm, such as vit",
            )
        if ours and training.gradient_checkpointing is True:
            yield FieldError(
                pointer=f"/{place}/gradient_checkpointing",
                message=f"{ours[0]} has no layers that compute their inner results twice: leave this out",
            )
