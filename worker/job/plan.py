"""The trainings of a job as data: which networks it trains, in which order, by which specs and on whose outputs.

Invariant: a plan follows from the spec alone, so an attempt that resumes has the same.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace

from service.spec import JobSpec
from service.spec.methods import DeepMutual
from service.spec.training import TrainingSpec
from worker.job.chain import chain_of
from worker.job.roles import CONTROL, STUDENT, Role, teachers_by_role
from worker.protocol import Part


@dataclass(frozen=True)
class PlannedTraining:
    """One training of a job. Several networks take its steps only where two peers learn from each other."""

    role: Role
    spec: TrainingSpec
    taught_by: tuple[Role, ...] = ()
    """The networks whose outputs it learns from, which are trained or loaded before it; none if it learns from labels alone."""
    peer: Role | None = None
    """The network that is trained in the same steps by the same spec, each on the other's current outputs."""
    steps_of: Role | None = None
    """The network whose number of steps it takes, however early that one's training stopped; None for its own spec's."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """The networks that are trained, whose results are recorded in this order."""
        return (self.role,) if self.peer is None else (self.peer, self.role)

    @property
    def learns_from(self) -> tuple[Role, ...]:
        """The networks whose outputs it learns from, be they trained before it or beside it."""
        return self.taught_by if self.peer is None else (self.peer,)

    @property
    def reads_transfer(self) -> bool:
        """Whether its samples hold the transfer rows, which have no labels."""
        return bool(self.learns_from)


@dataclass(frozen=True)
class JobPlan:
    """The networks that a job loads and trains."""

    teachers: tuple[Role, ...]
    given: tuple[Role, ...]
    """The teachers that are loaded rather than trained."""
    own: tuple[PlannedTraining, ...]
    """The trainings of the job's own seeds, in their order."""
    replicates: tuple[tuple[PlannedTraining, ...], ...] = ()
    """For each further seed the trainings of the student and, if there is one, its control, in their order."""

    @property
    def trainings(self) -> Iterator[PlannedTraining]:
        """All trainings in their order."""
        yield from self.own
        for trainings in self.replicates:
            yield from trainings

    @property
    def trained(self) -> tuple[Role, ...]:
        """The networks that are trained before the control, in the order in which they begin."""
        before = (training for training in self.own if training.role != CONTROL)
        return tuple(role for training in before for role in training.roles)

    @property
    def has_control(self) -> bool:
        """Whether the student is trained once more without its teachers."""
        return any(training.role == CONTROL for training in self.own)

    @property
    def reported(self) -> tuple[Role, ...]:
        """The networks that the report describes: teachers, chain, student and control."""
        return (*self.teachers, *(training.role for training in self.own if training.role not in self.teachers))

    @property
    def chain(self) -> tuple[Role, ...]:
        """The networks between the teachers and the student, in the order of their training."""
        return tuple(training.role for training in self.own if training.role.kind in ("generation", "assistant"))

    def training_of(self, role: Role) -> PlannedTraining:
        """The training of a network, or of it and its peer."""
        return next(training for training in self.trainings if role in training.roles)

    def roles_in(self, part: Part) -> Iterator[Role]:
        """The networks that are trained in a part of the job."""
        return (role for training in self.trainings for role in training.roles if role.part == part)

    def without(self, untrained: Set[Role]) -> "JobPlan":
        """The same plan without the trainings of these networks."""
        return replace(self, own=tuple(training for training in self.own if training.role not in untrained))


def plan_of(spec: JobSpec) -> JobPlan:
    """The plan of a job: teachers, the chain, the student, its control, and both again from each further seed."""
    teachers = teachers_by_role(spec)
    given = tuple(role for role, teacher in teachers.items() if teacher.training is None)
    if isinstance(spec.method, DeepMutual):
        (peer,) = teachers
        own = [PlannedTraining(STUDENT, spec.training, peer=peer)]
    else:
        own = [PlannedTraining(role, teacher.training) for role, teacher in teachers.items() if teacher.training is not None]
        taught_by = tuple(teachers)
        for role, network in chain_of(spec).items():
            own.append(PlannedTraining(role, network.training, taught_by))
            taught_by = (role,)
        own.append(PlannedTraining(STUDENT, spec.training, taught_by))
    own += _control(spec, own[-1])
    seeds = [seed for seed in spec.evaluation.seeds if seed != spec.training.seed]
    replicates = tuple(
        tuple(_replicate(training, seed) for training in own if training.role in (STUDENT, CONTROL)) for seed in seeds
    )
    return JobPlan(tuple(teachers), given, tuple(own), replicates)


def _control(spec: JobSpec, student: PlannedTraining) -> list[PlannedTraining]:
    """The student's control, which has its seed, hence the same initial weights and the same batches."""
    return [PlannedTraining(CONTROL, spec.training, steps_of=student.role)] if spec.evaluation.control else []


def _replicate(training: PlannedTraining, seed: int) -> PlannedTraining:
    """The same training from another seed."""
    steps_of = training.steps_of and replace(training.steps_of, seed=seed)
    spec = training.spec.model_copy(update={"seed": seed})
    return replace(training, role=replace(training.role, seed=seed), spec=spec, steps_of=steps_of)
