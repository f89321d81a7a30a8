"""Which number formats of a spec go together with what else it says. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.job import JobSpec
from service.spec.methods import DistillationNetwork, terms_of


def format_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds formats that would end in another network than the spec means."""
    place, teacher = next(iter(spec.teachers.items()))
    if teacher.dtype in ("int8", "int4") and spec.student.source == "teacher-layers":
        yield FieldError(
            pointer=f"/{place}/dtype",
            message=f"the student begins with the teacher's layers, which {teacher.dtype} rounds: take auto, fp32 or bf16, "
            "or the student from random",
        )
    if spec.student.weights == "fp32":
        return
    if spec.training.precision not in ("auto", "bf16"):
        yield FieldError(
            pointer="/training/precision",
            message=f"weights in {spec.student.weights} are trained in bf16: leave precision out, or take weights fp32",
        )
    if any(isinstance(term, DistillationNetwork) for term in terms_of(spec.method)):
        yield FieldError(
            pointer="/student/weights",
            message="distillation-network folds weights into others in the end, which bf16 would round: take fp32",
        )
