"""Pixel ranges: which stored values are black and white, as far as the data or a network's files show it.

Invariant: a white is never guessed. Images whose values show no usual range have the one that they were measured to have, and no
other range is mapped to it. 8-bit images are from 0 to 255 unless something else is known; where none of their pixels shows that,
what they are read beside decides, or they are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from worker.data.disk.stored import StoredInputs
from worker.data.errors import UnusableData


@dataclass(frozen=True)
class PixelRange:
    """Values of black and white, or the least and the greatest value of images whose black and white are unknown."""

    low: float
    high: float
    is_measured: bool = False
    """Whether black and white are unknown: pixels that were centred or standardised, say."""

    brightest: float | None = field(default=None, compare=False)
    """The greatest value of the images; None if a network's files do not tell."""

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"

    def factor_to(self, other: "PixelRange") -> float | None:
        """The factor by which these pixels become those of ``other``; None if none is known to do it."""
        if (self.low, self.high) == (other.low, other.high) or self.counts_as(other) or other.counts_as(self):
            return 1.0
        if self.is_measured and other.is_measured:
            spans = sorted((self.high - self.low, other.high - other.low))
            return 1.0 if spans[1] <= _ALIKE * spans[0] else None
        return None if self.is_measured or other.is_measured else other.high / self.high

    def counts_as(self, other: "PixelRange") -> bool:
        """Whether these are images without a pixel above the white of ``other``, which is not that of 8 bits, and so theirs."""
        if self.brightest is None or self.high != EIGHT_BIT.high or other.low != 0 or other.high >= EIGHT_BIT.high:
            return False
        return self.brightest <= other.high and (not other.is_measured or other.high <= _ALIKE * self.brightest)

    @property
    def is_doubtful(self) -> bool:
        """Whether the white is only supposed: no pixel is near it."""
        return self.is_measured or (self.high == EIGHT_BIT.high and self.is_darker_than(self.high))

    def is_darker_than(self, white: float) -> bool:
        """Whether no pixel has an eighth of this value, though not all are black."""
        return self.brightest is not None and 0 < self.brightest < white / _DARK

    def is_as(self, other: "PixelRange") -> bool:
        """Whether images of both ranges may stand in one split: their values mean the same."""
        if self.factor_to(other) == 1:
            dark, bright = sorted((self, other), key=lambda each: each.brightest or 0.0)
            return self != EIGHT_BIT or other != EIGHT_BIT or not dark.is_darker_than(bright.brightest or 0.0)
        dark, whole = (self, other) if self.is_measured else (other, self)
        is_dark = dark.is_measured and dark.low >= -_SLACK * dark.high and not dark.is_darker_than(EIGHT_BIT.high)
        return whole == EIGHT_BIT and is_dark


UNIT = PixelRange(0.0, 1.0)
EIGHT_BIT = PixelRange(0.0, 255.0)

_DARK = 8
"""Images whose brightest pixel has less than this part of white, three of eight bits, hardly are as dark as that."""
_SLACK = 0.05
"""Share of a usual range by which resampled images may overshoot it."""
_ALIKE = 4.0
"""Up to this ratio, measured spans of two sets of standardised images may be those of one way to standardise."""


def pixel_range(parts: Mapping[str, Tensor | StoredInputs], *, max_value: float | None) -> PixelRange:
    """The range of stored images (N, C, H, W) of all parts of the data; ``max_value`` is the white of 8-bit ones.

    Floating-point pixels from 0 to 1, or to 255 with at least one of the brighter half, have these usual ranges.

    Raises:
        UnusableData: one part is from 0 to 1, another from 0 to 255.
    """
    extremes = {name: value_range(images) for name, images in parts.items() if len(images)}
    low = min((least for least, _ in extremes.values()), default=0.0)
    high = max((greatest for _, greatest in extremes.values()), default=0.0)
    if max_value is not None:
        return PixelRange(0.0, max_value, brightest=high)
    for usual, least_bright in ((UNIT, 0.0), (EIGHT_BIT, EIGHT_BIT.high / 2)):
        slack = _SLACK * usual.high
        if -slack <= low and least_bright <= high <= usual.high + slack:
            dark = [name for name, (_, greatest) in extremes.items() if usual == EIGHT_BIT and greatest <= 1 + _SLACK]
            if dark:
                raise UnusableData(
                    f"the pixels of {dark[0]} are from 0 to 1, those of others from 0 to 255: store all in the same range"
                )
            return replace(usual, brightest=high)
    return PixelRange(low, high, is_measured=True, brightest=high)


def value_range(images: Tensor | StoredInputs) -> tuple[float, float]:
    """The least and the greatest value of one image or more."""
    if isinstance(images, StoredInputs):
        return images.pixel_sums.low, images.pixel_sums.high
    low, high = torch.aminmax(images)
    return low.item(), high.item()
