"""The offsets of a classifier's logits that give its mean probabilities wanted values. N samples, C classes.

The offsets b minimise ``mean logsumexp(z + b) − b · wanted``, a convex function whose gradient is the difference of the mean
probabilities from the wanted ones; they are unique up to a constant, and have mean 0 here. Invariant: all is computed in float64.
"""

import torch
from torch import Tensor

_TOLERANCE = 1e-9
_MOST_STEPS = 200
_LEAST_PROBABILITY = 1e-8
"""Of a class; an offset of −∞ would be needed for 0."""
_MOST_CLASSES = 2000
"""Of a Hessian (C, C) that is solved; above, steps are those of iterative scaling."""


def balancing_offsets(logits: Tensor, wanted: Tensor) -> Tensor:
    """Offsets (C,) for which the mean of ``softmax(logits + offsets)`` over the samples (N, C) is ``wanted`` (C,).

    A wanted probability below 1e-8 counts as 1e-8.
    """
    logits, wanted = logits.to(torch.float64), wanted.to(logits.device, torch.float64).clamp(min=_LEAST_PROBABILITY)
    wanted = wanted / wanted.sum()
    offsets = torch.zeros_like(wanted)
    value, probabilities = _objective(logits, offsets, wanted)
    for _ in range(_MOST_STEPS):
        gap = probabilities.mean(dim=0) - wanted
        if float(gap.abs().max()) < _TOLERANCE:
            break
        step = _step(probabilities, gap, wanted)
        size = 1.0
        while size > 1e-6:  # Newton's step may lead beyond the least value
            changed = offsets - size * step
            new_value, new_probabilities = _objective(logits, changed, wanted)
            if float(new_value) <= float(value):
                break
            size /= 2
        else:
            break  # at the least value that float64 can tell
        offsets, value, probabilities = changed, new_value, new_probabilities
    return offsets - offsets.mean()


def _objective(logits: Tensor, offsets: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The value that is minimised, and the probabilities (N, C)."""
    shifted = logits + offsets
    return shifted.logsumexp(dim=1).mean() - offsets @ wanted, shifted.softmax(dim=1)


def _step(probabilities: Tensor, gap: Tensor, wanted: Tensor) -> Tensor:
    """What is to be taken off the offsets (C,)."""
    mean = probabilities.mean(dim=0)
    if len(gap) > _MOST_CLASSES:
        return mean.clamp(min=_LEAST_PROBABILITY).log() - wanted.log()
    hessian = torch.diag(mean) - probabilities.T @ probabilities / len(probabilities)
    # A constant added to all offsets changes nothing: the Hessian is singular along it.
    hessian = hessian + 1 / len(gap) + torch.eye(len(gap)).to(hessian) * 1e-12
    solved: Tensor = torch.linalg.solve(hessian, gap)
    return solved
