"""What an operation of an augmentation works with: its own numbers, and how the inputs are stored.

Invariant: an operation's result for a sample depends on that sample and its numbers alone, to the last bit. So a function whose
rounding depends on the place in the batch (a vector unit rounds otherwise than the rest of a loop) is computed in float64 and
then rounded, or read from a table. B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Draw = Callable[[int], Tensor]
"""From a count to as many numbers in [0, 1) for each sample, (B, count) float32; called once by each operation."""


@dataclass(frozen=True)
class Vocabulary:
    """What the ids of a text's tokens mean."""

    pad: int
    """Stands after a text's end."""
    mask: int
    """Stands for a token that is hidden: the mask token, or the unknown one."""
    special: tuple[int, ...] = ()
    """Are never hidden or left out: where a text begins and ends."""


@dataclass(frozen=True)
class Stored:
    """How inputs are stored."""

    value_range: tuple[float, float] = (0.0, 255.0)
    """Of images: black, and the brightest value."""
    vocabulary: Vocabulary | None = None
    """Of texts."""


Operation = Callable[[Any, Tensor, Draw, Stored], Tensor]
"""From an augmentation's parameters, a batch (B, …), its numbers and how it is stored to the batch (B, …) that comes of it."""


def up_to(draws: Tensor, count: Tensor | int) -> Tensor:
    """Numbers in [0, 1) as whole numbers from 0 up to ``count`` (at most 2²⁴), itself left out; int64."""
    return (draws * count).to(torch.int64)


def between(draws: Tensor, low: float, high: float) -> Tensor:
    """Numbers in [0, 1) as numbers from ``low`` to ``high``."""
    return low + (high - low) * draws


def by_sample(values: Tensor, batch: Tensor) -> Tensor:
    """Values (B,) in the shape (B, 1, …) that goes with a batch (B, …)."""
    return values.view(-1, *[1] * (batch.dim() - 1))


def normal(draws: Tensor) -> Tensor:
    """Numbers in [0, 1) as numbers of the normal distribution of mean 0 and variance 1, of the same shape; float32."""
    return _look_up(_normal_quantiles(draws.device), draws)


def beta(draws: Tensor, *, alpha: float) -> Tensor:
    """Numbers in [0, 1) as numbers of the distribution Beta(α, α), of the same shape; float32."""
    return _look_up(_beta_quantiles(alpha, draws.device), draws)


_QUANTILES = 2**16


def _look_up(quantiles: Tensor, draws: Tensor) -> Tensor:
    return quantiles[up_to(draws, _QUANTILES)]


def _probabilities() -> Tensor:
    return (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES


@lru_cache(maxsize=8)
def _normal_quantiles(device: torch.device) -> Tensor:
    quantiles: Tensor = torch.special.ndtri(_probabilities())
    return quantiles.to(device, torch.float32)


@lru_cache(maxsize=8)
def _beta_quantiles(alpha: float, device: torch.device) -> Tensor:
    # SciPy takes a while to import, which jobs without mixtures need not wait for.
    from scipy.special import betaincinv

    quantiles = betaincinv(alpha, alpha, _probabilities().numpy())
    return torch.from_numpy(quantiles).to(device, torch.float32)
