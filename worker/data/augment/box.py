"""Boxes in the images of a batch, for cutout and CutMix. B batch, C channels, H height, W width."""

import torch
from torch import Tensor

from worker.data.augment.operation import up_to


def boxes(images: Tensor, centres: Tensor, *, heights: Tensor | int, widths: Tensor | int) -> Tensor:
    """Mask of each image's box: (B, 1, H, W) of the images' dtype, 1 inside and 0 outside.

    ``centres`` (B, 2) are draws in [0, 1): every pixel is equally likely to be the centre. ``heights`` and ``widths`` (B,) are
    in pixels. A box is clipped at the border.
    """
    rows = _stretches(centres[:, 0], heights, images.shape[2]).to(images.dtype)
    columns = _stretches(centres[:, 1], widths, images.shape[3]).to(images.dtype)
    return (rows[:, :, None] * columns[:, None, :])[:, None]


def paste(images: Tensor, other: Tensor | float, box: Tensor) -> Tensor:
    """Fills the boxes of images (B, C, H, W) from ``other``; exact, and several times faster than a masked copy."""
    return images * (1 - box) + other * box


def _stretches(centres: Tensor, lengths: Tensor | int, size: int) -> Tensor:
    """Marks which of ``size`` positions lie in the stretch around each centre; (B, size) bool."""
    if isinstance(lengths, Tensor):
        lengths = lengths[:, None]
    starts = up_to(centres, size)[:, None] - lengths // 2
    places = torch.arange(size, device=centres.device)
    return (places >= starts) & (places < starts + lengths)
