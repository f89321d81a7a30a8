"""The roles of a job's networks: teachers, the chain between them and the student, student, control, seed replicates."""

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from worker.protocol import Part, Phase

Role = str
"""A teacher's, of ``teachers_by_role``; one of ``chain_of``; ``student``; ``control``; or a seed replicate of these two."""


def teachers_by_role(spec: JobSpec) -> dict[str, TeacherSpec]:
    """The teachers by role: ``teacher`` if there is one, else ``teacher-1``, ``teacher-2`` and so on."""
    each = list(spec.teachers.values())
    return {"teacher" if len(each) == 1 else f"teacher-{number}": teacher for number, teacher in enumerate(each, start=1)}


_SEED_MARK = "@"


def replicate_of(kind: str, seed: int) -> str:
    """The role of the seed replicate of ``kind``, the ``student`` or the ``control``."""
    return f"{kind}{_SEED_MARK}{seed}"


def base_role(role: str) -> str:
    """The role that a seed replicate replicates; any other role is its own."""
    return role.partition(_SEED_MARK)[0]


def seed_of(role: str, *, otherwise: int) -> int:
    """The seed of a seed replicate; ``otherwise`` for any other role."""
    _, mark, seed = role.partition(_SEED_MARK)
    return int(seed) if mark else otherwise


def seed_replicates(spec: JobSpec) -> list[tuple[str, ...]]:
    """The roles to train for each seed except the job's own: the student, and the control if there is one."""
    kinds = ("student", "control") if spec.evaluation.control else ("student",)
    seeds = [seed for seed in spec.evaluation.seeds if seed != spec.training.seed]
    return [tuple(replicate_of(kind, seed) for kind in kinds) for seed in seeds]


def roles_by_seed(spec: JobSpec, kind: str) -> list[Role]:
    """The roles of the student, or the control, by the seeds that the spec names: the job's own and its replicates."""
    return [kind if seed == spec.training.seed else replicate_of(kind, seed) for seed in spec.evaluation.seeds]


def phase_of(role: Role) -> Phase:
    """The phase that a network's training is reported under; the chain between teacher and student counts as ``teacher``."""
    match base_role(role):
        case "student":
            return "student"
        case "control":
            return "control"
    return "teacher"


def part_of(role: Role) -> Part:
    """The part of the job that a network's training belongs to."""
    if base_role(role) != role:
        return "repeats"
    phase = phase_of(role)
    return phase if phase in ("student", "control") else "teacher"
