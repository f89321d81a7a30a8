"""Who stands between the teacher and the student: networks that are each taught by the one before, in a job of several trainings.

Invariant: which they are, and in what order, follows from the spec alone, so an attempt that resumes finds the same.
"""

from dataclasses import dataclass

from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.fit import usual_features
from service.spec.inputs import Features
from service.spec.methods import BornAgain, TeacherAssistant
from service.spec.training import TrainingSpec

_SEEDS = 2**32


@dataclass(frozen=True)
class Link:
    """One network of the chain. It reads texts by the student's tokenizer."""

    architecture: Architecture
    features: Features | None
    """Of sound; None for those that its architecture is made for."""
    training: TrainingSpec


def chain_of(spec: JobSpec) -> dict[str, Link]:
    """The networks by role (``generation-1``, ``assistant-1`` …), from the teacher's side to the student's; often there is none.

    Each starts from a seed of its own: from the student's, a generation would begin as the student itself.
    """
    student = spec.student.architecture
    match spec.method:
        case BornAgain(generations=generations):
            word, architectures = "generation", [student] * (generations - 1)
        case TeacherAssistant(assistants=assistants):
            word, architectures = "assistant", assistants
        case _:
            return {}
    return {
        f"{word}-{number}": Link(architecture, _features(spec, architecture), _with_own_seed(spec.training, number))
        for number, architecture in enumerate(architectures, start=1)
    }


def _features(spec: JobSpec, architecture: Architecture) -> Features | None:
    """The student's, where the architecture can read them."""
    ours = spec.student.features
    return ours if ours is not None and ours.name == usual_features(architecture).name else None


def _with_own_seed(training: TrainingSpec, number: int) -> TrainingSpec:
    return training.model_copy(update={"seed": (training.seed + number) % _SEEDS})
