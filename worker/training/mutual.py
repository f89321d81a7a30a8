"""Deep mutual learning: two networks that are trained at the same time, each taught by what the other says at that moment.

Zhang, Xiang, Hospedales, Lu: Deep Mutual Learning, 2018, arXiv:1706.00384. Both learn from one forward pass of each on the same
samples; the other's outputs are targets, no gradient flows through them.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from worker.distributed.ranks import Losses
from worker.methods import DistillationBatch, Outputs
from worker.training.loop import Training


class MutualTraining(Training):
    """The student's training, with its peer's beside it: the peer takes every step that the student takes, and no other.

    Each has its optimizer, its best weights and its metrics; what ends the training, and what is told of its progress, is the
    student's. The peer's state is part of this one's.
    """

    def __init__(self, *arguments: Any, peer: Training, **options: Any) -> None:
        """``peer`` is a training of as many samples in as many steps; the rest is as of any training."""
        super().__init__(*arguments, **options)
        self.peer = peer
        peer.early_stopping = None
        peer.network.train()

    def update(self, batches: list[Tensor]) -> None:
        """One optimizer step of each network over ``batches`` of sample indices."""
        both = (self, self.peer)
        num_samples = sum(map(len, batches))
        losses: tuple[list[Tensor], list[Tensor]] = ([], [])
        for indices in batches:
            for training, loss, kept in zip(both, self.losses(indices), losses, strict=True):
                kept.append(training.weighted(loss, share=len(indices) / num_samples))
            # At once: ranks bring the gradients of both networks together in one pass.
            torch.autograd.backward([training.scaler.scale(kept[-1]) for training, kept in zip(both, losses, strict=True)])
        for training, kept in zip(both, losses, strict=True):
            training.optimizer_step(kept)

    @cached_property
    def losses(self) -> Losses:
        """Of both networks."""
        return self.group.wrap_ddp(nn.ModuleList([self.module, self.peer.module]), self._losses)

    def _losses(self, indices: Tensor) -> tuple[Tensor, ...]:
        ours, theirs = (training.forward(indices) for training in (self, self.peer))
        return self.objective(_taught(ours, by=theirs)), self.peer.objective(_taught(theirs, by=ours))

    def evaluate(self) -> None:
        """Of both networks; each keeps the weights that are its own best."""
        super().evaluate()
        if self.done:
            self.peer.last_step = self.step
        self.peer.evaluate()

    def read_losses(self) -> None:
        """Of both networks."""
        super().read_losses()
        self.peer.read_losses()

    def take_points(self) -> dict[str, list[tuple[int, float]]]:
        """Of both networks; their names differ."""
        return super().take_points() | self.peer.take_points()

    def state(self) -> dict[str, Any]:
        """Of both networks."""
        return super().state() | {"peer": self.peer.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Both networks."""
        super().restore(state)
        self.peer.restore(state["peer"])


def _taught(step: DistillationBatch, *, by: DistillationBatch) -> DistillationBatch:
    return replace(step, teacher=Outputs(by.student.logits.detach()))
