"""Counter-based random numbers for views of samples: a function of (seed, epoch, sample, stream) and of nothing else.

There is no state. A sample's numbers are the same in every batch, at every position in it, on every device and after a resume, so
that a teacher or a later attempt computes the very same view again.

The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA
2014, doi:10.1145/2660193.2660195; constants as in Vigna's splitmix64.c, prng.di.unimi.it), whose nth number can be computed
without those before it. The sequence of (seed, epoch) has a number for each sample, which seeds that sample's own sequence; its
streams begin 2³² numbers apart. B batch.
"""

from dataclasses import dataclass
from typing import Self

import numpy
import torch
from torch import Tensor

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB


@dataclass(frozen=True)
class Numbers:
    """Random numbers of some samples in one epoch. Streams, numbered from 0 to 2³¹ - 1, are independent of each other."""

    keys: Tensor
    """(B,) int64: the seed of each sample's sequence."""

    @classmethod
    def of(cls, indices: Tensor, *, seed: int, epoch: int) -> Self:
        """Computes the seeds of the samples at ``indices`` (B,), on the same device."""
        root = numpy.random.SeedSequence([seed, epoch]).generate_state(1, dtype=numpy.uint64)[0]
        return cls(_split_mix(_signed(int(root)), indices.to(torch.int64)))

    def uniforms(self, count: int, *, stream: int) -> Tensor:
        """The first ``count`` numbers of each sample's stream in [0, 1), (B, count) float32; a larger count only appends."""
        # float32 holds 24 bits exactly, so that no number is rounded up to 1.
        return _shift(self._bits(count, stream=stream), 40).to(torch.float32).mul_(2.0**-24)

    def integers(self, *, below: int, stream: int) -> Tensor:
        """An integer in [0, ``below``) for each sample, (B,) int64; ``below`` is less than 2³¹."""
        # Lemire's multiply-shift (2019, arXiv:1805.10941): no number's chance is off by more than 2⁻³².
        return _shift(_shift(self._bits(1, stream=stream), 32).mul_(below), 32).squeeze(1)

    def _bits(self, count: int, *, stream: int) -> Tensor:
        """Random words of 64 bits, (B, count) int64."""
        first = stream << 32
        return _split_mix(self.keys[:, None], torch.arange(first, first + count, device=self.keys.device))


def _split_mix(seeds: Tensor | int, positions: Tensor) -> Tensor:
    """The numbers at ``positions``, from 0, of the sequences of ``seeds``. int64 multiplication wraps as uint64's does."""
    state = seeds + (positions + 1) * _signed(_GOLDEN_GAMMA)
    state = state.bitwise_xor_(_shift(state, 30)).mul_(_signed(_FIRST_FACTOR))
    state = state.bitwise_xor_(_shift(state, 27)).mul_(_signed(_SECOND_FACTOR))
    return state.bitwise_xor_(_shift(state, 31))


def _shift(bits: Tensor, count: int) -> Tensor:
    """Shifts right and fills with zeros, where int64's own shift would repeat the sign."""
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same bits."""
    return value - (1 << 64) if value >> 63 else value
