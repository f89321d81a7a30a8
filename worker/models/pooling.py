"""Pooling of a text's token states into one vector, with the names and formulas of sentence-transformers' ``Pooling``.

Invariant: padding has no effect. B batch, L tokens, D width.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def pool(states: Tensor, mask: Tensor, modes: tuple[PoolingMode, ...]) -> Tensor:
    """Pools states (B, L, D) of the tokens of ``mask`` (B, L), bool and padded at the end, to (B, D · number of modes)."""
    return torch.cat([POOLING[mode](states, mask) for mode in modes], dim=-1)


def _cls(states: Tensor, mask: Tensor) -> Tensor:
    return states[:, 0]


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(dim=1)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    counted = mask.unsqueeze(-1).to(states.dtype)
    return (states * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _mean_sqrt_len_tokens(states: Tensor, mask: Tensor) -> Tensor:
    counted = mask.unsqueeze(-1).to(states.dtype)
    return (states * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1).sqrt()


def _weightedmean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean weighted by place, 1 for the first token (SGPT: Muennighoff 2022, arXiv:2202.08904)."""
    counted = (mask * mask.cumsum(dim=1)).unsqueeze(-1).to(states.dtype)
    return (states * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _lasttoken(states: Tensor, mask: Tensor) -> Tensor:
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    return states.gather(1, last.view(-1, 1, 1).expand(-1, 1, states.shape[-1])).squeeze(1)


POOLING: dict[PoolingMode, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len_tokens,
    "weightedmean": _weightedmean,
    "lasttoken": _lasttoken,
}
"""By mode, in the order in which the older form of the file concatenates them."""
