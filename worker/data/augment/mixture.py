"""Operations that mix a second sample, the partner, into each sample, and return the share of the first. B batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.spec.augment import Mixup
from service.spec.image_augment import CutMix
from worker.data.augment.box import boxes, paste
from worker.data.augment.operation import Draw, beta, by_sample

MixOperation = Callable[[Any, Tensor, Tensor, Draw], tuple[Tensor, Tensor]]
"""From parameters, samples (B, …), partners (B, …) and draws to the mixed samples (B, …) and the shares of the first (B,)."""


def mixup(spec: Mixup, samples: Tensor, partners: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Weighted mean of both samples (Zhang et al., 2018); float32."""
    shares = beta(draw(1)[:, 0], alpha=spec.alpha)
    weights = by_sample(shares, samples)
    return weights * samples.to(torch.float32) + (1 - weights) * partners.to(torch.float32), shares


def cutmix(spec: CutMix, samples: Tensor, partners: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Pastes a box of the partner's pixels, of the image's proportions, around any pixel (Yun et al., 2019); (B, C, H, W)."""
    height, width = samples.shape[2:]
    draws = draw(4)
    sides = (1 - beta(draws[:, 0], alpha=spec.alpha)).sqrt()
    sides = torch.where(draws[:, 1] < spec.probability, sides, 0.0)
    heights, widths = ((sides * side).to(torch.int64) for side in (height, width))
    box = boxes(samples, draws[:, 2:], heights=heights, widths=widths)
    return paste(samples, partners, box), 1 - box.sum(dim=(1, 2, 3), dtype=torch.float32) / (height * width)
