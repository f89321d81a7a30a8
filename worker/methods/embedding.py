"""The loss on embeddings of whole samples, and how two networks' embeddings correlate. N samples, D and E widths."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import EmbeddingDistillation
from worker.methods.batch import DistillationBatch
from worker.methods.context import LossContext

MOST_COMPARED = 1000
"""Samples whose pairs tell how two networks' embeddings correlate: half a million."""


class EmbeddingLoss(nn.Module):
    """``MSE(P e_s, e_t)`` or ``1 − cos(P e_s, e_t)``, batch mean; P is learned where widths differ, for training alone.

    Reimers, Gurevych, 2020, arXiv:2004.09813, for the squared error.
    """

    def __init__(self, spec: EmbeddingDistillation, context: LossContext) -> None:
        super().__init__()
        self._loss = spec.loss
        ours, theirs = context.widths
        self.projection: nn.Module = nn.Identity() if ours == theirs else nn.Linear(ours, theirs)

    def forward(self, batch: DistillationBatch) -> Tensor:
        ours, theirs = self.projection(batch.student.logits), batch.teacher_outputs.logits
        if self._loss == "mse":
            return functional.mse_loss(ours, theirs)
        return 1 - functional.cosine_similarity(ours, theirs, dim=-1).mean()


def similarity_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Computes the correlation of all pairs' cosine similarities in embeddings (N, D) with those in embeddings (N, E).

    It reads the first samples, :data:`MOST_COMPARED` at most, and is 0 if one network's similarities are constant.
    """
    pairs = [pair_similarities(embeddings[:MOST_COMPARED].to(torch.float64)) for embeddings in (first, second)]
    return torch.corrcoef(torch.stack(pairs))[0, 1].nan_to_num(nan=0.0)


def pair_similarities(embeddings: Tensor) -> Tensor:
    """Computes the cosine similarities of all pairs of rows (N, D), each pair once: (N · (N − 1) / 2,)."""
    unit = functional.normalize(embeddings, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    return (unit @ unit.T)[first, second]
