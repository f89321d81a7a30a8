"""How sure an embedding's likeness to its teacher's is: intervals by the bootstrap over texts. N texts, D and E widths, R draws.

A text that is drawn twice counts twice in each of its pairs, and makes no pair with itself, which would be alike for certain.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from service.spec.cards.evidence import TargetEvidence
from worker.evaluation.bootstrap import Groups, Interval, Numbers, correlation, draws, interval_of, intervals_of
from worker.evaluation.metrics import ROUNDING
from worker.methods.embedding import MOST_COMPARED


def embedding_evidence(student: Tensor, teacher: Tensor) -> TargetEvidence:
    """Intervals of :func:`worker.evaluation.metrics.embedding_metrics` of embeddings (N, D) beside a teacher's (N, E).

    Those of similarities only where they are of as many texts as the score is.
    """
    groups = Groups(len(student))
    values = {} if len(student) > MOST_COMPARED else {"similarity_pearson": _likeness(student, teacher)}
    if student.shape == teacher.shape:
        ours, theirs = student.cpu().double(), teacher.cpu().double()
        cosine = functional.cosine_similarity(ours, theirs).numpy()
        count, cosines, errors = (
            draws(groups.count) @ groups.sums(np.ones(len(ours)), cosine, (ours - theirs).square().mean(dim=1).numpy())
        ).T
        values |= {"cosine": cosines / count, "mse": errors / count}
    return TargetEvidence(intervals=intervals_of(values, groups))


def likeness_interval(student: Tensor, teacher: Tensor) -> Interval | None:
    """The 95% interval of the score, the correlation of all pairs' similarities; None for fewer than three texts."""
    return interval_of(_likeness(student, teacher)) if len(student) > 2 else None


def likeness_difference_interval(first: Tensor, second: Tensor, teacher: Tensor) -> Interval | None:
    """The 95% interval of one embedding's score less another's, on the same draws; None for fewer than three texts."""
    if len(first) <= 2:
        return None
    # Embeddings that are turned alone differ by rounding, which is no difference.
    differences = _likeness(first, teacher) - _likeness(second, teacher)
    return interval_of(np.where(np.abs(differences) < ROUNDING, 0.0, differences))


def _likeness(student: Tensor, teacher: Tensor) -> Numbers:
    """The score of each draw (R,), on the texts that the score is of."""
    ours, theirs = (_similarities(each[:MOST_COMPARED]) for each in (student, teacher))
    weights = draws(len(ours))

    def over_pairs(values: Numbers) -> Numbers:
        """Sums over all pairs of two texts that are not one, each weighted by how often both were drawn."""
        sums: Numbers = ((weights @ values) * weights).sum(axis=1) - weights**2 @ np.diag(values)
        return sums

    moments = (np.ones_like(ours), ours, theirs, ours**2, theirs**2, ours * theirs)
    return correlation(np.stack([over_pairs(each) for each in moments], axis=1))


def _similarities(embeddings: Tensor) -> Numbers:
    unit = functional.normalize(embeddings.detach().to("cpu", torch.float64), dim=1)
    similarities: Numbers = (unit @ unit.T).numpy()
    # Of similarities that are all but equal the sums of squares would lose what they differ by.
    similarities -= similarities.mean()
    return similarities
