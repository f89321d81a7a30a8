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

from worker.evaluation.bootstrap import Groups, Interval, Numbers, draws, intervals_of, ratio

Tags = Sequence[str | None]
"""The tag of each word of a sample, None where it has none."""

OUTSIDE = "O"


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


def entity_intervals(counts: EntityCounts, type_: str | None = None) -> dict[str, Interval]:
    """The 95% intervals of :meth:`EntityCounts.score` by the bootstrap over samples; none of fewer than two.

    Words of one sample depend on each other, samples do not.
    """
    groups = Groups(len(counts.true))
    matched, predicted, true = _drawn(groups, counts, type_)
    values = {"precision": ratio(matched, predicted), "recall": ratio(matched, true), "f1": ratio(2 * matched, predicted + true)}
    return intervals_of(values, groups)


def f1_interval(counts: EntityCounts) -> Interval | None:
    """The 95% interval of the F1 of all types; None of fewer than two samples."""
    return entity_intervals(counts).get("f1")


def f1_difference_interval(first: EntityCounts, second: EntityCounts) -> Interval | None:
    """The 95% interval of one network's F1 less another's, on the same samples; None of fewer than two."""
    groups = Groups(len(first.true))
    f1 = [ratio(2 * matched, predicted + true) for matched, predicted, true in (_drawn(groups, each) for each in (first, second))]
    return intervals_of({"difference": f1[0] - f1[1]}, groups).get("difference")


def _drawn(groups: Groups, counts: EntityCounts, type_: str | None = None) -> Numbers:
    """Entities that were matched, predicted and true in each draw of samples, of one type or of all: (3, R)."""
    chosen = slice(None) if type_ is None else [counts.types.index(type_)]
    sums = groups.sums(*(each[:, chosen].sum(axis=1) for each in (counts.matched, counts.predicted, counts.true)))
    return (draws(groups.count) @ sums).T


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
