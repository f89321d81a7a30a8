"""The numbers that a view of a sample is made with: a function of (seed, epoch, sample, stream) and of nothing else.

There is no state. A sample's numbers are the same in every batch, at every place in it, on every device and after a resume, so
that whoever asks for a view again, a teacher or a later attempt, gets the very same.

The numbers of a sample are those of the generator SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
OOPSLA 2014, doi:10.1145/2660193.2660195; constants as in Vigna's splitmix64.c, prng.di.unimi.it). Its nth number can be had
without those before it, and one such sequence seeds the next: that of (seed, epoch, stream) one for each sample. B batch.
"""

import numpy
import torch
from torch import Tensor

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB


def uniforms(seed: int, epoch: int, indices: Tensor, count: int, *, stream: int) -> Tensor:
    """``count`` numbers in [0, 1) for each of the samples ``indices`` (B,): (B, count) float32, on the same device.

    A sample's first numbers do not depend on how many are asked for. Different streams are independent of each other.
    """
    # float32 holds 24 bits exactly, so that no number is rounded up to 1.
    return _shift(_bits(seed, epoch, indices, count, stream=stream), 40).to(torch.float32).mul_(2.0**-24)


def integers(seed: int, epoch: int, indices: Tensor, *, below: int, stream: int) -> Tensor:
    """A number from 0 up to ``below``, itself left out, for each of the samples ``indices`` (B,): (B,) int64, on the same device.

    ``below`` is less than 2³¹.
    """
    bits = _bits(seed, epoch, indices, 1, stream=stream)
    # Lemire's multiply-shift (2019, arXiv:1805.10941): no number's chance is off by more than 2⁻³².
    return _shift(_shift(bits, 32).mul_(below), 32).squeeze(1)


def _bits(seed: int, epoch: int, indices: Tensor, count: int, *, stream: int) -> Tensor:
    """64 random bits each, (B, count) int64."""
    root = numpy.random.SeedSequence([seed, epoch, stream]).generate_state(1, dtype=numpy.uint64)[0]
    keys = _split_mix(_signed(int(root)), indices.to(torch.int64))
    return _split_mix(keys[:, None], torch.arange(count, device=indices.device))


def _split_mix(seeds: Tensor | int, places: Tensor) -> Tensor:
    """The numbers at ``places``, from 0, of the sequences that ``seeds`` begin. int64 multiplication wraps as uint64's does."""
    state = seeds + (places + 1) * _signed(_GOLDEN_GAMMA)
    state = state.bitwise_xor_(_shift(state, 30)).mul_(_signed(_FIRST_FACTOR))
    state = state.bitwise_xor_(_shift(state, 27)).mul_(_signed(_SECOND_FACTOR))
    return state.bitwise_xor_(_shift(state, 31))


def _shift(bits: Tensor, places: int) -> Tensor:
    """To the right; zeros come in from the left, where int64's own shift would repeat the sign."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same bits."""
    return value - (1 << 64) if value >> 63 else value
