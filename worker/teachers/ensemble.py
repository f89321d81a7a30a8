"""Several networks' outputs as one: what they say together. N samples, W outputs, C classes of one target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.data import Split
from worker.data.samples import Batch
from worker.methods import Outputs
from worker.targets import Target, Targets
from worker.trained import TrainedNetwork
from worker.training.objective import TeacherOutputs


def combined(outputs: Sequence[Tensor], targets: Targets, *, weights: Sequence[float] | None = None) -> Tensor:
    """The outputs (N, W) of several networks as one network's (N, W), in float32.

    Of classes it is the logarithm of the weighted mean of the probabilities, of a number the weighted mean. Where a network says
    nothing of a target (NaN), the others' mean counts; where none says anything, it stays NaN.
    """
    weights = weights if weights is not None else [1.0] * len(outputs)
    by_target = zip(*(targets.split(each.to(torch.float64)) for each in outputs), strict=True)
    columns = [_combined(target, torch.stack(each), weights) for target, each in zip(targets, by_target, strict=True)]
    return torch.cat(columns, dim=-1).to(torch.float32)


def _combined(target: Target, outputs: Tensor, weights: Sequence[float]) -> Tensor:
    """(networks, N, C) to (N, C)."""
    known = outputs.isfinite().all(dim=-1, keepdim=True)
    weight = torch.tensor(weights, dtype=torch.float64, device=outputs.device)[:, None, None] * known
    share = weight / weight.sum(dim=0)  # NaN where nobody says anything
    if target.classes is None:
        return (share * outputs.nan_to_num(nan=0.0)).sum(dim=0)
    return (share.log() + outputs.nan_to_num(nan=0.0).log_softmax(dim=-1)).logsumexp(dim=0)


@dataclass(frozen=True)
class Teachers:
    """Finished networks, by role, and what each of them weighs."""

    members: Mapping[str, TrainedNetwork]
    weights: tuple[float, ...]
    targets: Targets

    @property
    def first(self) -> TrainedNetwork:
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

    def combine(self, by_member: Sequence[TeacherOutputs]) -> TeacherOutputs:
        """What they say together of a batch."""
        if len(by_member) == 1:
            return by_member[0]

        def together(batch: Batch) -> Outputs:
            return Outputs(self.together([answers(batch).logits for answers in by_member]))

        return together
