"""Several networks' outputs as one: what they say together. N samples, W outputs, C classes of one target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.targets import Target, Targets


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
