"""The combined outputs of several networks. N samples, W outputs, C classes of one target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worker.data import Split
from worker.data.samples import Batch
from worker.methods import Outputs
from worker.targets import Target, Targets
from worker.trained import TrainedNetwork
from worker.training.criterion import TeacherOutputs


def combine_outputs(outputs: Sequence[Tensor], targets: Targets, *, weights: Sequence[float] | None = None) -> Tensor:
    """Combines the outputs (N, W) of several networks into one (N, W), in float32.

    For classes this is the logarithm of the weighted mean of the probabilities, or its logit where they do not exclude each
    other; for a number the weighted mean. A network without outputs for a target (NaN) is left out of that target's mean; if none
    has outputs, the target stays NaN.
    """
    weights = weights if weights is not None else [1.0] * len(outputs)
    by_target = zip(*(targets.split(each.to(torch.float64)) for each in outputs), strict=True)
    columns = [_combine(target, torch.stack(each), weights) for target, each in zip(targets, by_target, strict=True)]
    return torch.cat(columns, dim=-1).to(torch.float32)


def _combine(target: Target, outputs: Tensor, weights: Sequence[float]) -> Tensor:
    """Combines (networks, N, …, C) into (N, …, C)."""
    known = outputs.isfinite().all(dim=-1, keepdim=True)
    weight = torch.tensor(weights, dtype=torch.float64, device=outputs.device).view(-1, *[1] * (known.dim() - 1)) * known
    share = weight / weight.sum(dim=0)  # NaN where no network has outputs
    if target.classes is None:
        return (share * outputs.nan_to_num(nan=0.0)).sum(dim=0)
    if target.is_multi_label:
        yes, no = ((share.log() + functional.logsigmoid(sign * outputs.nan_to_num(nan=0.0))).logsumexp(dim=0) for sign in (1, -1))
        return yes - no  # the logit of the mean probability
    return (share.log() + outputs.nan_to_num(nan=0.0).log_softmax(dim=-1)).logsumexp(dim=0)


@dataclass(frozen=True)
class Teachers:
    """Trained networks by role, and the weight of each in their combined outputs."""

    members: Mapping[str, TrainedNetwork]
    weights: tuple[float, ...]
    targets: Targets

    @property
    def first(self) -> TrainedNetwork:
        """The first member; the only one for a method that reads layers of its teacher."""
        return next(iter(self.members.values()))

    @property
    def teaches(self) -> tuple[str, ...] | None:
        """The targets that any member teaches; None for all."""
        by_member = [member.teaches for member in self.members.values()]
        taught = {name for names in by_member for name in names or ()}
        if None in by_member or len(taught) == len(self.targets):
            return None
        return tuple(target.name for target in self.targets if target.name in taught)

    def outputs(self, split: Split) -> Tensor:
        """The combined outputs (N, W) on a split."""
        return self.combine([member.outputs(split) for member in self.members.values()])

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Combines one (N, W) of each member; NaN for a target that no member teaches."""
        return outputs[0] if len(outputs) == 1 else combine_outputs(outputs, self.targets, weights=self.weights)

    def combine_sources(self, by_member: Sequence[TeacherOutputs]) -> TeacherOutputs:
        """The combined outputs on a batch, from one source for each member."""
        return by_member[0] if len(by_member) == 1 else CombinedOutputs(self, by_member)


@dataclass(frozen=True)
class CombinedOutputs:
    """The outputs of several teachers on the same batch, combined in each step."""

    teachers: Teachers
    by_member: Sequence[TeacherOutputs]

    def __call__(self, batch: Batch) -> Outputs:
        return Outputs(self.teachers.combine([outputs(batch).logits for outputs in self.by_member]))

    def stored_bytes(self, num_samples: int) -> int:
        return sum(outputs.stored_bytes(num_samples) for outputs in self.by_member)
