"""Contrastive representation distillation: Tian, Krishnan, Isola, 2020, arXiv:1910.10699.

A sample's embedding by one network is contrasted with the embeddings of the same sample and of K samples of other classes by the
other network, which lie in a memory bank. B batch, N samples of the training split, D width of the embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import ContrastiveDistillation
from worker.methods.batch import DistillationBatch
from worker.methods.compared import pooled_features, pooled_width
from worker.methods.context import LossContext

_EPSILON = 1e-7


class ContrastiveMemory(nn.Module):
    """The loss with its projections and its two memory banks; all of it is checkpointed.

    ``labels`` (N,) are the training split's, from which the negatives are drawn.
    """

    labels: Tensor
    student_bank: Tensor
    teacher_bank: Tensor
    student_scale: Tensor
    teacher_scale: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        *,
        labels: Tensor,
        dimension: int,
        num_negatives: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.num_negatives, self.temperature, self.momentum = num_negatives, temperature, momentum
        self.student_projection = nn.Linear(student_width, dimension)
        self.teacher_projection = nn.Linear(teacher_width, dimension)
        self.register_buffer("labels", labels.clone())
        bound = (3 / dimension) ** 0.5
        self.register_buffer("student_bank", torch.empty(len(labels), dimension).uniform_(-bound, bound))
        self.register_buffer("teacher_bank", torch.empty(len(labels), dimension).uniform_(-bound, bound))
        # Normalising constants, estimated from the first batch as in the reference code; 0 until then.
        self.register_buffer("student_scale", torch.zeros(()))
        self.register_buffer("teacher_scale", torch.zeros(()))

    def forward(self, student: Tensor, teacher: Tensor, indices: Tensor) -> Tensor:
        """Computes the loss of embeddings (B, ·) of the samples at ``indices`` (B,), and updates both banks."""
        ours = functional.normalize(self.student_projection(student.flatten(1)), dim=1)
        theirs = functional.normalize(self.teacher_projection(teacher.flatten(1)), dim=1)
        drawn = torch.cat([indices.unsqueeze(1), self._negatives(indices)], dim=1)
        loss = self._contrast(ours, self.teacher_bank[drawn], self.student_scale) + self._contrast(
            theirs, self.student_bank[drawn], self.teacher_scale
        )
        self._remember(self.student_bank, ours, indices)
        self._remember(self.teacher_bank, theirs, indices)
        return loss

    def _negatives(self, indices: Tensor) -> Tensor:
        """Draws (B, K) samples of other classes, with replacement."""
        weights = (self.labels.unsqueeze(0) != self.labels[indices].unsqueeze(1)).float()
        weights += weights.sum(dim=1, keepdim=True) == 0  # a split of one class has no other: then any sample
        return torch.multinomial(weights, self.num_negatives, replacement=True)

    def _contrast(self, embeddings: Tensor, remembered: Tensor, scale: Tensor) -> Tensor:
        """Computes the noise-contrastive estimate: the first of ``remembered`` (B, 1 + K, D) is the positive."""
        similarity = (torch.einsum("bd,bkd->bk", embeddings, remembered) / self.temperature).exp()
        num_samples = len(self.labels)
        scale.copy_(torch.where(scale == 0, similarity.detach().mean() * num_samples, scale))
        similarity = similarity / scale
        noise = self.num_negatives / num_samples
        positive = (similarity[:, 0] / (similarity[:, 0] + noise + _EPSILON)).log()
        negative = (noise / (similarity[:, 1:] + noise + _EPSILON)).log()
        return -(positive.sum() + negative.sum()) / len(embeddings)

    @torch.no_grad()
    def _remember(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        moved = self.momentum * bank[indices] + (1 - self.momentum) * embeddings.to(bank.dtype)
        bank[indices] = functional.normalize(moved, dim=1)


class ContrastiveLoss(nn.Module):
    """A :class:`ContrastiveMemory` for each pair of layers, summed."""

    def __init__(self, spec: ContrastiveDistillation, context: LossContext) -> None:
        super().__init__()
        self._pairs = context.pairs
        self.memories = nn.ModuleList(
            ContrastiveMemory(
                pooled_width(ours),
                pooled_width(theirs),
                labels=context.labels,
                dimension=spec.dimension,
                num_negatives=spec.negatives,
                temperature=spec.temperature,
                momentum=spec.momentum,
            )
            for ours, theirs in context.shape_pairs()
        )

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            memory(ours, theirs, batch.indices)
            for memory, (ours, theirs) in zip(self.memories, pooled_features(batch, self._pairs), strict=True)
        ]
        return torch.stack(losses).sum()
