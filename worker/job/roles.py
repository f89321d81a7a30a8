"""The roles of a job's networks: teachers, the chain between them and the student, student, control, seed replicates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar, cast, get_args

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from worker.protocol import Part, Phase

RoleKind = Literal["teacher", "generation", "assistant", "student", "control"]

T = TypeVar("T")
_WRITTEN = re.compile(rf"({'|'.join(get_args(RoleKind))})(?:-(\d+))?(?:@(\d+))?")


@dataclass(frozen=True)
class Role:
    """The role of one network of a job.

    Its text, such as ``teacher-1``, ``student`` or ``student@7``, names the network in checkpoints, metrics, reports and folders.
    """

    kind: RoleKind
    index: int | None = None
    """Which of several teachers, or of the chain, from 1; None for a kind of which the job has one."""
    seed: int | None = None
    """The seed of a seed replicate of the student or the control; None for every other network."""

    def __str__(self) -> str:
        index = "" if self.index is None else f"-{self.index}"
        return f"{self.kind}{index}" if self.seed is None else f"{self.kind}{index}@{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a role's text. Raises ValueError."""
        found = _WRITTEN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no role of a network")
        kind, index, seed = found.groups()
        return cls(cast(RoleKind, kind), None if index is None else int(index), None if seed is None else int(seed))

    @property
    def base(self) -> "Role":
        """The role that a seed replicate replicates; any other role is its own."""
        return replace(self, seed=None)

    @property
    def phase(self) -> Phase:
        """The phase that the network's training is reported under; the chain counts as ``teacher``."""
        match self.kind:
            case "student" | "control":
                return self.kind
        return "teacher"

    @property
    def part(self) -> Part:
        """The part of the job that the network's training belongs to."""
        if self.seed is not None:
            return "repeats"
        match self.kind:
            case "student" | "control":
                return self.kind
        return "teacher"


STUDENT, CONTROL = Role("student"), Role("control")


def adapter_folder(role: Role) -> str:
    """The folder of the result that holds a network's adapter."""
    return "adapter" if role == STUDENT else f"{role}-adapter"


def by_name(values: Mapping[Role, T]) -> dict[str, T]:
    """The same values by the texts of their roles."""
    return {str(role): value for role, value in values.items()}


def teachers_by_role(spec: JobSpec) -> dict[Role, TeacherSpec]:
    """The teachers by role: ``teacher`` if there is one, else ``teacher-1``, ``teacher-2`` and so on."""
    each = list(spec.teachers.values())
    return {Role("teacher", None if len(each) == 1 else number): teacher for number, teacher in enumerate(each, start=1)}


def roles_by_seed(spec: JobSpec, kind: Literal["student", "control"]) -> list[Role]:
    """The roles of the student, or the control, by the seeds that the spec names: the job's own and its replicates."""
    own = spec.training.seed
    return [Role(kind, seed=None if seed == own else seed) for seed in spec.evaluation.seeds]
