"""Operations that bring a second sample in, its partner, and say how much of the first is left. B batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.spec.augment import CutMix, Mixup
from worker.data.augment.operation import Draw, beta, by_sample, up_to

Mixture = Callable[[Any, Tensor, Tensor, Draw], tuple[Tensor, Tensor]]
"""From parameters, samples (B, …), their partners (B, …) and numbers to the mixed samples and the first ones' shares (B,)."""


def mixup(spec: Mixup, samples: Tensor, partners: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """The weighted mean; float32."""
    shares = beta(draw(1)[:, 0], alpha=spec.alpha)
    weights = by_sample(shares, samples)
    return weights * samples.to(torch.float32) + (1 - weights) * partners.to(torch.float32), shares


def cutmix(spec: CutMix, samples: Tensor, partners: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """A box of the partner's pixels, of the image's own proportions, whose centre is any pixel; (B, C, H, W) of any type."""
    height, width = samples.shape[2:]
    draws = draw(4)
    sides = (1 - beta(draws[:, 0], alpha=spec.alpha)).sqrt()
    sides = torch.where(draws[:, 1] < spec.probability, sides, 0.0)
    rows = _stretch(draws[:, 2], sides, height)
    columns = _stretch(draws[:, 3], sides, width)
    box = (rows[:, :, None] & columns[:, None, :])[:, None]
    area = rows.sum(dim=1) * columns.sum(dim=1)
    return torch.where(box, partners, samples), 1 - area / (height * width)


def _stretch(centres: Tensor, shares: Tensor, size: int) -> Tensor:
    """Which of ``size`` places lie in a stretch of the given share of them around a centre; (B, size)."""
    lengths = (shares * size).to(torch.int64)[:, None]
    starts = up_to(centres, size)[:, None] - lengths // 2
    places = torch.arange(size, device=centres.device)
    return (places >= starts) & (places < starts + lengths)
