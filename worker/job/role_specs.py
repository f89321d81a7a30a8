"""What a job's spec says of each of its networks, by role.

Invariant: all of it follows from the spec alone, so an attempt that resumes has the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.job import StudentSpec, TeacherSpec
from service.spec.methods import DistillationNetwork
from service.spec.training import TrainingSpec
from worker.job.chain import IntermediateNetwork, chain_of
from worker.job.plan import JobPlan, plan_of
from worker.job.roles import STUDENT, Role, teachers_by_role
from worker.methods import privileged_term


@dataclass(frozen=True)
class RoleSpecs:
    """The parts of a job's spec by the roles of its networks."""

    job: JobSpec

    @cached_property
    def teachers(self) -> Mapping[Role, TeacherSpec]:
        """The teachers."""
        return teachers_by_role(self.job)

    @cached_property
    def chain(self) -> Mapping[Role, IntermediateNetwork]:
        """The networks between the teachers and the student, in the order of their training."""
        return chain_of(self.job)

    @cached_property
    def plan(self) -> JobPlan:
        """The job's trainings."""
        return plan_of(self.job)

    def of(self, role: Role) -> TeacherSpec | StudentSpec:
        """The spec of a teacher; for any other network the student's."""
        return self.teachers.get(role) or self.job.student

    def source(self, role: Role) -> str:
        """What the network begins with, as in the spec."""
        return "random" if role in self.chain else self.of(role).source

    def architecture(self, role: Role) -> Architecture:
        """The architecture of a network that begins with random weights."""
        architecture = self.chain[role].architecture if role in self.chain else self.of(role).architecture
        if architecture is None:
            raise RuntimeError("a network that does not exist has an architecture in the spec")
        return architecture

    def is_trained(self, role: Role) -> bool:
        """Whether this job trains the network."""
        return role not in self.teachers or self.teachers[role].training is not None

    def training(self, role: Role) -> TrainingSpec:
        """The training spec of a network of this job; a seed replicate's has its own seed."""
        return self.plan.training_of(role).spec

    def reads_transfer(self, role: Role) -> bool:
        """Whether a network that this job trains learns from transfer rows: it has a teacher, or a peer."""
        return self.plan.training_of(role).reads_transfer

    def privileged(self, role: Role) -> DistillationNetwork | None:
        """The method's term by which this network reads its teacher's outputs; None for a plain network."""
        return privileged_term(self.job.method) if role.kind == "student" else None

    def is_plain(self, role: Role) -> bool:
        """Whether the network has no parts that only training needs."""
        return self.privileged(role) is None

    def same_tokenizer(self, role: Role) -> Role | None:
        """An earlier teacher whose tokenizer is trained as this network's is: it would be the same one."""
        own = self.of(role).tokenizer
        for earlier, teacher in self.teachers.items():
            if earlier == role or own is None:
                return None
            if teacher.tokenizer == own:
                return earlier
        return None

    def path(self, role: Role) -> str:
        """Where the spec has this teacher, or else the student: the path of a JSON pointer without its first slash."""
        return dict(zip(self.teachers, self.job.teachers, strict=True)).get(role, "student")

    def training_path(self, role: Role) -> str:
        """The JSON pointer to the spec that a network is trained by."""
        trained_as = self.plan.training_of(role).role  # a peer is trained as the student is
        return f"/{self.path(trained_as)}/training" if trained_as in self.teachers else "/training"


def student_of(role: Role) -> Role:
    """The role whose start and preprocessing a network shares: control and seed replicates have the student's."""
    return STUDENT if role.kind in {"student", "control"} else role
