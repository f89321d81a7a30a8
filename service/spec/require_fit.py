"""Gates on figures that the report of a spec will not have: refused where they are asked for. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.job import JobSpec
from service.spec.tasks import TASKS


def require_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds gates on a gain that nothing measures, and on a score that is the agreement with the teacher."""
    gates = spec.require.gates
    if "gain" in gates and not spec.evaluation.control:
        message = "the gain is over a control, and the job trains none: set evaluation.control to true, or leave this out"
        yield FieldError(pointer="/require/gain", message=message)
    if "relative_to_teacher" in gates and TASKS[spec.task].is_scored_by_teacher:
        message = "an embedding's score is its likeness to the teacher's: require score instead, or agreement"
        yield FieldError(pointer="/require/relative_to_teacher", message=message)
    unscored = set(spec.dataset.targets) - {
        name for each in spec.teachers.values() for name in each.targets or spec.dataset.targets
    }
    if "relative_to_teacher" in gates and unscored:
        message = f"the teachers have no score of {', '.join(sorted(unscored))}: require score instead"
        yield FieldError(pointer="/require/relative_to_teacher", message=message)
