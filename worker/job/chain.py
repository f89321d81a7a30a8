"""The networks between the teacher and the student, each distilled from the one before.

Invariant: the chain follows from the spec alone, so an attempt that resumes has the same.
"""

from dataclasses import dataclass

from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.fit import usual_features
from service.spec.inputs import Features
from service.spec.methods import BornAgain, TeacherAssistant
from service.spec.training import TrainingSpec
from worker.job.roles import Role, RoleKind

_SEEDS = 2**32


@dataclass(frozen=True)
class IntermediateNetwork:
    """One network of the chain. Its tokenizer is the student's."""

    architecture: Architecture
    features: Features | None
    """The features of sound that it reads; None for those that its architecture is made for."""
    training: TrainingSpec


def chain_of(spec: JobSpec) -> dict[Role, IntermediateNetwork]:
    """The networks by role (``generation-1``, ``assistant-1`` …), in the order of their training; for most methods there is none.

    Each has a seed of its own: with the student's, a generation would have the student's initial weights.
    """
    kind: RoleKind
    match spec.method:
        case BornAgain(generations=generations):
            kind, architectures = "generation", [spec.student.built] * (generations - 1)
        case TeacherAssistant(assistants=assistants):
            kind, architectures = "assistant", assistants
        case _:
            return {}
    return {
        Role(kind, number): IntermediateNetwork(
            architecture, _features(spec, architecture), _with_own_seed(spec.training, number)
        )
        for number, architecture in enumerate(architectures, start=1)
    }


def _features(spec: JobSpec, architecture: Architecture) -> Features | None:
    """The student's features, if the architecture can read them; else None."""
    ours = spec.student.features
    return ours if ours is not None and ours.name == usual_features(architecture).name else None


def _with_own_seed(training: TrainingSpec, number: int) -> TrainingSpec:
    return training.model_copy(update={"seed": (training.seed + number) % _SEEDS})
