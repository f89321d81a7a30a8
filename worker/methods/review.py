"""Knowledge review: Chen, Liu, Zhao, Jia, 2021, arXiv:2104.09044.

From the deepest stage upwards, each of the student's stages is fused by attention with the outcome of the deeper ones, and
compared with the teacher's stage of that depth. B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import KnowledgeReview
from worker.methods.batch import DistillationBatch
from worker.methods.compared import features
from worker.methods.context import LossContext
from worker.methods.feature import hierarchical_context


class ReviewModule(nn.Module):
    """The fusion modules and the loss. Shapes are (C, H, W) by stage, from the first to the deepest."""

    def __init__(self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size], *, width: int) -> None:
        super().__init__()
        middle = min(width, student_shapes[-1][0])
        deepest = len(student_shapes) - 1
        self.fusions = nn.ModuleList(
            Fusion(student[0], middle, teacher[0], is_deepest=stage == deepest)
            for stage, (student, teacher) in enumerate(zip(student_shapes, teacher_shapes, strict=True))
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W) by stage, from the first to the deepest."""
        loss, deeper = student[0].new_zeros(()), None
        for fusion, ours, theirs in reversed(list(zip(self.fusions, student, teacher, strict=True))):
            fused, deeper = fusion(ours, deeper, theirs.shape[-2:])
            loss = loss + hierarchical_context(fused, theirs)
        return loss


class Fusion(nn.Module):
    """Attention-based fusion of a stage with the outcome of the deeper ones."""

    def __init__(self, student_channels: int, middle: int, teacher_channels: int, *, is_deepest: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(student_channels, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.widen = nn.Sequential(
            nn.Conv2d(middle, teacher_channels, 3, padding=1, bias=False), nn.BatchNorm2d(teacher_channels)
        )
        self.attention = None if is_deepest else nn.Conv2d(2 * middle, 2, 1)

    def forward(self, maps: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Computes the stage in the teacher's shape, (B, C_t, *size), and the maps that the next stage up is fused with."""
        narrow = self.narrow(maps)
        if self.attention is not None and deeper is not None:
            deeper = functional.interpolate(deeper, narrow.shape[-2:], mode="nearest")
            shares = self.attention(torch.cat([narrow, deeper], dim=1)).sigmoid()
            narrow = narrow * shares[:, :1] + deeper * shares[:, 1:]
        sized = narrow if narrow.shape[-2:] == size else functional.interpolate(narrow, size, mode="nearest")
        return self.widen(sized), narrow


class ReviewLoss(nn.Module):
    """A :class:`ReviewModule` on the layers that a spec compares."""

    def __init__(self, spec: KnowledgeReview, context: LossContext) -> None:
        super().__init__()
        context.require_maps(spec.name)
        self._pairs = context.pairs
        ours, theirs = zip(*context.shape_pairs(), strict=True)
        self.review = ReviewModule(ours, theirs, width=spec.width)

    def forward(self, batch: DistillationBatch) -> Tensor:
        ours, theirs = zip(*features(batch, self._pairs), strict=True)
        loss: Tensor = self.review(ours, theirs)
        return loss
