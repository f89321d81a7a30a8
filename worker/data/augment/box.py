"""A box in each image of a batch. B batch, C channels, H height, W width."""

import torch
from torch import Tensor

from worker.data.augment.operation import up_to


def boxes(images: Tensor, centres: Tensor, *, heights: Tensor | int, widths: Tensor | int) -> Tensor:
    """Where each image's box is: (B, 1, H, W) of the images' type, 1 inside and 0 outside.

    ``centres`` (B, 2), numbers in [0, 1), make every pixel as likely to be the centre; ``heights`` and ``widths`` (B,) are in
    pixels. What reaches over the border is cut off.
    """
    rows = _stretches(centres[:, 0], heights, images.shape[2]).to(images.dtype)
    columns = _stretches(centres[:, 1], widths, images.shape[3]).to(images.dtype)
    return (rows[:, :, None] * columns[:, None, :])[:, None]


def paste(images: Tensor, other: Tensor | float, box: Tensor) -> Tensor:
    """The images (B, C, H, W) with the ``other`` ones in their boxes; exact, and several times faster than a masked copy."""
    return images * (1 - box) + other * box


def _stretches(centres: Tensor, lengths: Tensor | int, size: int) -> Tensor:
    """Which of ``size`` places lie in a stretch around each centre; (B, size)."""
    if isinstance(lengths, Tensor):
        lengths = lengths[:, None]
    starts = up_to(centres, size)[:, None] - lengths // 2
    places = torch.arange(size, device=centres.device)
    return (places >= starts) & (places < starts + lengths)
