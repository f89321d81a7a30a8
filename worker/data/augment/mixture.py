"""Operations that bring a second sample in, its partner, and say how much of the first is left. B batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.spec.augment import CutMix, Mixup
from worker.data.augment.box import boxes, paste
from worker.data.augment.operation import Draw, beta, by_sample

MixOperation = Callable[[Any, Tensor, Tensor, Draw], tuple[Tensor, Tensor]]
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
    heights, widths = ((sides * side).to(torch.int64) for side in (height, width))
    box = boxes(samples, draws[:, 2:], heights=heights, widths=widths)
    return paste(samples, partners, box), 1 - box.sum(dim=(1, 2, 3), dtype=torch.float32) / (height * width)
