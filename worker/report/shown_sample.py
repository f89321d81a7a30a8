"""One sample of a split as a report shows it: a text, or a small picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from service.formats import TextPair, Waveform
from worker.data import Data, Split
from worker.data.disk.stored import StoredInputs
from worker.data.images.thumbnail import thumbnail
from worker.data.preprocessing import take

_MOST_CHARACTERS = 300
_WORDS_AROUND = 12


class ShownSample(NamedTuple):
    """What is shown; neither for sound."""

    text: str | None = None
    picture: str | None = None


def shown_sample(split: Split, row: int, data: Data, *, word: int | None = None) -> ShownSample:
    """Reads one sample; of one in words, ``word`` is marked."""
    taken = take(split.inputs, np.array([row]))
    (sample,) = taken.read() if isinstance(taken, StoredInputs) else taken
    if isinstance(sample, Tensor):
        return ShownSample(picture=thumbnail(sample.cpu(), data.pixel_range))
    if isinstance(sample, TextPair):
        return ShownSample(text=" ⏐ ".join(_cut(text, _MOST_CHARACTERS // 2) for text in sample))
    if isinstance(sample, str):
        return ShownSample(text=_cut(sample, _MOST_CHARACTERS))
    if isinstance(sample, Waveform) or not isinstance(sample, Sequence):
        return ShownSample()
    return ShownSample(text=_marked(list(map(str, sample)), word))


def _cut(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}…"


def _marked(words: list[str], word: int | None) -> str:
    """The words around one, which stands in brackets."""
    if word is None:
        return _cut(" ".join(words), _MOST_CHARACTERS)
    first, end = max(0, word - _WORDS_AROUND), word + _WORDS_AROUND + 1
    shown = [f"[{each}]" if at == word else each for at, each in enumerate(words)][first:end]
    return ("… " if first else "") + " ".join(shown) + (" …" if end < len(words) else "")
