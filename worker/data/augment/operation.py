"""Interface of augmentation operations: their random draws, the storage of their inputs, and the distributions of draws.

Invariant: an operation's result for a sample depends on that sample and its draws alone, to the last bit. So a function whose
rounding depends on the position in the batch (a vectorised loop rounds differently from its scalar tail) is computed in float64
and then rounded, or read from a table. B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from worker.data.images.canvas import Canvas, WholeImages

Draw = Callable[[int], Tensor]
"""From a count to that many draws in [0, 1) for each sample, (B, count) float32; called once by each operation."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of the tokens that operations on texts treat specially."""

    pad: int
    """Fills the row after a text's end."""
    mask: int
    """Replaces a hidden token: the mask token, else the unknown token."""
    special: tuple[int, ...] = ()
    """Tokens that begin and end a text, which are never hidden or left out."""


@dataclass(frozen=True)
class Stored:
    """Storage of the inputs."""

    value_range: tuple[float, float] = (0.0, 255.0)
    """Values of black and white in images."""
    vocabulary: Vocabulary | None = None
    """Given for texts alone."""
    whole: WholeImages | None = field(default=None, repr=False)
    """Of images that were fitted to a canvas, and of which windows are taken: the images themselves."""
    canvas: Canvas | None = None
    """The canvas of these."""


Operation = Callable[[Any, Tensor, Draw, Stored], Tensor]
"""From an augmentation's parameters, a batch (B, …), its draws and its storage to the augmented batch (B, …)."""


def up_to(draws: Tensor, count: Tensor | int) -> Tensor:
    """Maps draws in [0, 1) to integers in [0, ``count``), int64; ``count`` is at most 2²⁴."""
    return (draws * count).to(torch.int64)


def between(draws: Tensor, low: float, high: float) -> Tensor:
    """Maps draws in [0, 1) to the interval from ``low`` to ``high``."""
    return low + (high - low) * draws


def by_sample(values: Tensor, batch: Tensor) -> Tensor:
    """Reshapes values (B,) to (B, 1, …), which broadcasts over a batch (B, …)."""
    return values.view(-1, *[1] * (batch.dim() - 1))


def normal(draws: Tensor) -> Tensor:
    """Maps draws in [0, 1) to draws of the standard normal distribution, of the same shape; float32."""
    return _look_up(_normal_quantiles(draws.device), draws)


def beta(draws: Tensor, *, alpha: float) -> Tensor:
    """Maps draws in [0, 1) to draws of the distribution Beta(α, α), of the same shape; float32."""
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
