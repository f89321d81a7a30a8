"""Stored samples that are no tensor, one by one: a text, the words of one, or a waveform."""

import hashlib
import json
from collections.abc import Hashable, Sequence
from typing import Any, TypeGuard

from service.formats import TextPair, Waveform

RawSample = str | Sequence[str] | Waveform


def are_pairs(inputs: Any) -> TypeGuard[Sequence[TextPair]]:
    """Whether stored samples are pairs of texts; their first tells it."""
    return isinstance(inputs, Sequence) and bool(len(inputs)) and isinstance(inputs[0], TextPair)


def num_characters(sample: RawSample) -> int:
    """Characters of a text, or of all its words; 0 of a waveform."""
    if isinstance(sample, Waveform):
        return 0
    return len(sample) if isinstance(sample, str) else sum(map(len, sample))


def sample_bytes(sample: RawSample) -> bytes:
    """Bytes that are equal for equal samples alone."""
    if isinstance(sample, Waveform):
        return f"{sample.rate}\n".encode() + sample.samples.tobytes()
    text = sample if isinstance(sample, str) else json.dumps(list(sample))
    return text.encode(errors="surrogatepass")


def sample_key(sample: RawSample) -> Hashable:
    """Equal for equal samples, by which other samples hardly ever are: of texts themselves, else a digest."""
    if isinstance(sample, Waveform):
        return sample.rate, hashlib.blake2b(sample.samples.tobytes(), digest_size=16).digest()
    return sample if isinstance(sample, str) else tuple(sample)
