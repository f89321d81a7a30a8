"""The networks of a job by the part that each of them plays: teachers, the chain between, student, control, seed replicates."""

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from worker.protocol import Part, Phase

Role = str
"""A teacher's, of ``teachers_by_role``; one of ``chain_of``; ``student``; ``control``; or a repeat of one of these two."""


def teachers_by_role(spec: JobSpec) -> dict[str, TeacherSpec]:
    """``teacher`` alone, or ``teacher-1``, ``teacher-2`` and so on."""
    each = list(spec.teachers.values())
    return {"teacher" if len(each) == 1 else f"teacher-{number}": teacher for number, teacher in enumerate(each, start=1)}


_MARK = "@"


def replicate_of(kind: str, seed: int) -> str:
    """The role of a repeat of the ``student`` or the ``control``."""
    return f"{kind}{_MARK}{seed}"


def base_role(role: str) -> str:
    """What a role is a repeat of; itself for one that is none."""
    return role.partition(_MARK)[0]


def seed_of(role: str, *, otherwise: int) -> int:
    """The seed of a repeat."""
    _, mark, seed = role.partition(_MARK)
    return int(seed) if mark else otherwise


def seed_replicates(spec: JobSpec) -> list[tuple[str, ...]]:
    """For each seed but the job's own, the roles to train: the student, and the control where there is one."""
    kinds = ("student", "control") if spec.evaluation.control else ("student",)
    seeds = [seed for seed in spec.evaluation.seeds if seed != spec.training.seed]
    return [tuple(replicate_of(kind, seed) for kind in kinds) for seed in seeds]


def roles_by_seed(spec: JobSpec, kind: str) -> list[Role]:
    """The roles of the student, or the control, by the seeds that the spec names: the job's own and its replicates."""
    return [kind if seed == spec.training.seed else replicate_of(kind, seed) for seed in spec.evaluation.seeds]


def phase_of(role: Role) -> Phase:
    """Under which phase a network's training is told: those between teacher and student teach."""
    match base_role(role):
        case "student":
            return "student"
        case "control":
            return "control"
    return "teacher"


def part_of(role: Role) -> Part:
    """What a network's training is counted to."""
    if base_role(role) != role:
        return "repeats"
    phase = phase_of(role)
    return phase if phase in ("student", "control") else "teacher"
