"""Losses on how the samples of a batch relate to each other. B batch, D width; embeddings are (B, D), of any two widths.

Each formula is a scalar, without its weight in a job's sum; memory and time grow with B². What is named ``…_loss`` or ``…Loss``
builds it from a spec, as the sum over the pairs of layers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import CorrelationCongruence, ProbabilisticTransfer, RelationalDistillation
from worker.methods.batch import DistillationBatch, Loss
from worker.methods.compared import over_vectors, pooled_features, pooled_width
from worker.methods.context import LossContext

_DISTANCE_EPSILON = 1e-12
_SIMILARITY_EPSILON = 1e-7


def relational(student: Tensor, teacher: Tensor, *, distance_weight: float, angle_weight: float) -> Tensor:
    """Huber losses of the batch's pairwise distances, in units of their mean, and of the angles of its triplets.

    Park et al., 2019, arXiv:1904.05068.
    """
    distances = functional.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    angles = functional.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance_weight * distances + angle_weight * angles


def _relative_distances(embeddings: Tensor) -> Tensor:
    """(B, B), 0 on the diagonal."""
    squares = embeddings.square().sum(dim=1)
    squared = squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * embeddings @ embeddings.T
    diagonal = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    # A root has no finite slope at 0, where the diagonal is.
    distances = squared.clamp(min=_DISTANCE_EPSILON).sqrt().masked_fill(diagonal, 0)
    return distances / distances[distances > 0].mean()


def _angles(embeddings: Tensor) -> Tensor:
    """(B, B, B): cosine of the angle at the first sample between the second and the third."""
    directions = functional.normalize(embeddings.unsqueeze(0) - embeddings.unsqueeze(1), dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def probabilistic(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs of the KL divergence of the cosine similarities, each row as a distribution.

    PKT: Passalis, Tefas, 2018, arXiv:1803.10837.
    """
    ours, theirs = _similarity_distribution(student), _similarity_distribution(teacher)
    return (theirs * ((theirs + _SIMILARITY_EPSILON) / (ours + _SIMILARITY_EPSILON)).log()).mean()


def _similarity_distribution(embeddings: Tensor) -> Tensor:
    lengths: Tensor = embeddings.norm(dim=1, keepdim=True)
    unit = embeddings / (lengths + _SIMILARITY_EPSILON)
    similarities = (unit @ unit.T + 1) / 2
    return similarities / similarities.sum(dim=1, keepdim=True)


def congruence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of ``Σ_d |Δ_i| |Δ_(i+1)|`` over consecutive samples' differences Δ to the teacher; embeddings of one width.

    Correlation congruence (Peng et al., 2019, arXiv:1904.01802), in the form of the public reference code.
    """
    difference = (student - teacher).abs()
    return (difference[:-1] * difference[1:]).sum(dim=1).mean()


def relational_loss(spec: RelationalDistillation, context: LossContext) -> Loss:
    return over_vectors(
        context.pairs,
        lambda ours, theirs: relational(ours, theirs, distance_weight=spec.distance_weight, angle_weight=spec.angle_weight),
    )


def probabilistic_loss(spec: ProbabilisticTransfer, context: LossContext) -> Loss:
    return over_vectors(context.pairs, probabilistic)


class CongruenceLoss(nn.Module):
    """:func:`congruence` of embeddings behind a learned projection of each network."""

    def __init__(self, spec: CorrelationCongruence, context: LossContext) -> None:
        super().__init__()
        self._pairs = context.pairs
        shapes = context.shape_pairs()
        self.student = nn.ModuleList(nn.Linear(pooled_width(ours), spec.dimension) for ours, _ in shapes)
        self.teacher = nn.ModuleList(nn.Linear(pooled_width(theirs), spec.dimension) for _, theirs in shapes)

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            congruence(student(ours), teacher(theirs))
            for student, teacher, (ours, theirs) in zip(
                self.student, self.teacher, pooled_features(batch, self._pairs), strict=True
            )
        ]
        return torch.stack(losses).sum()
