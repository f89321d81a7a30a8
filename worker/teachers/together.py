"""The teachers of a job as the one that its student learns from.

Invariant: what one teacher alone says is taught as it is; of several, :func:`~worker.teachers.ensemble.combined` makes one.
N samples, W outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from worker.data import Split
from worker.data.samples import Batch
from worker.methods import Outputs
from worker.targets import Targets
from worker.teachers.ensemble import combined
from worker.trained import FinishedNetwork
from worker.training.objective import Answers


def teachers_by_role(spec: JobSpec) -> dict[str, TeacherSpec]:
    """``teacher`` alone, or ``teacher-1``, ``teacher-2`` and so on."""
    each = list(spec.teachers.values())
    return {"teacher" if len(each) == 1 else f"teacher-{number}": teacher for number, teacher in enumerate(each, start=1)}


@dataclass(frozen=True)
class Teachers:
    """Finished networks, by role, and what each of them weighs."""

    members: Mapping[str, FinishedNetwork]
    weights: tuple[float, ...]
    targets: Targets

    @property
    def first(self) -> FinishedNetwork:
        """A method that looks inside its teacher has this one alone."""
        return next(iter(self.members.values()))

    @property
    def teaches(self) -> tuple[str, ...] | None:
        """The targets that one of them teaches; None for all."""
        by_member = [member.teaches for member in self.members.values()]
        taught = {name for names in by_member for name in names or ()}
        if None in by_member or len(taught) == len(self.targets):
            return None
        return tuple(target.name for target in self.targets if target.name in taught)

    def outputs(self, split: Split) -> Tensor:
        """What they say together of a split (N, W)."""
        return self.together([member.outputs(split) for member in self.members.values()])

    def together(self, outputs: Sequence[Tensor]) -> Tensor:
        """One (N, W) of each member's; NaN for a target that none teaches."""
        return outputs[0] if len(outputs) == 1 else combined(outputs, self.targets, weights=self.weights)

    def answers(self, by_member: Sequence[Answers]) -> Answers:
        """What they say together of a batch."""
        if len(by_member) == 1:
            return by_member[0]

        def together(batch: Batch) -> Outputs:
            return Outputs(self.together([answers(batch).logits for answers in by_member]))

        return together
