"""Named entities: what a sequence of IOB2 tags names, and how much of it a network finds. S samples, T types of entities.

An entity counts as found if its first word, its last word and its type are right, as in the shared task of CoNLL-2003 (Tjong Kim
Sang, De Meulder, 2003). Predicted tags may break IOB2: as there, an ``I-X`` that continues no entity of type X begins one.
Of tags that are no IOB2, such as parts of speech, each word is an entity of its own, so that F1 is the accuracy of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tags = Sequence[str | None]
"""The tag of each word of a sample, None where it has none."""

OUTSIDE = "O"
_RESAMPLES = 1_000
_NORMAL_ENDS = (2.5, 97.5)


class Entity(NamedTuple):
    """Some consecutive words of one sample."""

    type: str
    first: int
    end: int
    """The word after its last one."""


class EntityScore(NamedTuple):
    """How many of the entities were found. All are 0 where a share has no entity to be of."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class EntityCounts:
    """Entities by sample and type, (S, T) each."""

    types: tuple[str, ...]
    matched: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]

    def score(self, type_: str | None = None) -> EntityScore:
        """The score over all samples, of one type or of all together (micro)."""
        chosen = slice(None) if type_ is None else [self.types.index(type_)]
        matched, predicted, true = (int(each[:, chosen].sum()) for each in (self.matched, self.predicted, self.true))
        return EntityScore(
            matched / predicted if predicted else 0.0,
            matched / true if true else 0.0,
            2 * matched / (predicted + true) if predicted + true else 0.0,
        )


def are_iob2(tags: Sequence[str]) -> bool:
    """Whether these names of classes are IOB2 tags, rather than classes of words."""
    return any(tag.startswith(("B-", "I-")) for tag in tags)


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities that IOB2 tags of one sample's words name, in their order."""
    found: list[Entity] = []
    type_, first = "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, named = tag.partition("-")
        if type_ and (prefix != "I" or named != type_):
            found.append(Entity(type_, first, place))
            type_ = ""
        if prefix in ("B", "I") and not type_:
            type_, first = named, place
    return found


def count_entities(
    predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str | None]], classes: Sequence[str]
) -> EntityCounts:
    """Counts the entities of S samples' tags by type. A word without a true tag (None) is of no entity, predicted or true."""
    if not are_iob2(classes):
        return _count_words(predicted, true, classes)
    types = tuple(sorted({tag.partition("-")[2] for tag in classes if tag != OUTSIDE}))
    counts = np.zeros((3, len(predicted), len(types)), dtype=np.int64)
    for sample, (ours, wanted) in enumerate(zip(predicted, true, strict=True)):
        known = [OUTSIDE if right is None else tag for tag, right in zip(ours, wanted, strict=True)]
        each = set(entities_of(known)), set(entities_of([right or OUTSIDE for right in wanted]))
        for kind, entities in enumerate((each[0] & each[1], *each)):
            for entity in entities:
                counts[kind, sample, types.index(entity.type)] += 1
    return EntityCounts(types, *counts)


def f1_interval(counts: EntityCounts) -> tuple[float, float] | None:
    """Computes the 95% interval of the F1 of all types by the bootstrap over samples; None of fewer than two.

    Words of one sample depend on each other, samples do not.
    """
    resampled = _resampled_f1([counts])
    return None if resampled is None else _ends(resampled[0])


def f1_difference_interval(first: EntityCounts, second: EntityCounts) -> tuple[float, float] | None:
    """Computes the 95% interval of one network's F1 less another's, on the same samples; None of fewer than two."""
    resampled = _resampled_f1([first, second])
    return None if resampled is None else _ends(resampled[0] - resampled[1])


def _count_words(
    predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str | None]], classes: Sequence[str]
) -> EntityCounts:
    index = {tag: place for place, tag in enumerate(classes)}
    counts = np.zeros((3, len(predicted), len(classes)), dtype=np.int64)
    for sample, (ours, wanted) in enumerate(zip(predicted, true, strict=True)):
        for tag, right in zip(ours, wanted, strict=True):
            if right is not None:
                counts[1, sample, index[tag]] += 1
                counts[2, sample, index[right]] += 1
                counts[0, sample, index[tag]] += tag == right
    return EntityCounts(tuple(classes), *counts)


def _resampled_f1(networks: Sequence[EntityCounts]) -> NDArray[np.float64] | None:
    """F1 of each network on the same draws, with replacement, of as many samples as there are: (networks, draws).

    Samples of equal counts are drawn together: there are few kinds of them, however many samples.
    """
    totals = np.concatenate(
        [np.stack([each.sum(axis=1) for each in (one.matched, one.predicted, one.true)], axis=1) for one in networks], axis=1
    )
    size = len(totals)
    if size < 2:
        return None
    kinds, frequencies = np.unique(totals, axis=0, return_counts=True)
    draws = np.random.default_rng(0).multinomial(size, frequencies / size, size=_RESAMPLES)
    sums = (draws @ kinds).reshape(_RESAMPLES, len(networks), 3).transpose(1, 0, 2)
    found = sums[..., 1] + sums[..., 2]
    f1: NDArray[np.float64] = np.divide(2.0 * sums[..., 0], found, out=np.zeros(found.shape), where=found > 0)
    return f1


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, _NORMAL_ENDS)
    return float(low), float(high)
