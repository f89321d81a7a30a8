"""Deep mutual learning: two networks that are trained at the same time, each on the other's current outputs.

Zhang, Xiang, Hospedales, Lu: Deep Mutual Learning, 2018, arXiv:1706.00384. Both learn from one forward pass of each on the same
samples; the other's outputs are detached targets.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.data.samples import Samples
from worker.distributed.ranks import Losses
from worker.errors import UnfitTraining
from worker.methods import DistillationBatch, Outputs
from worker.training.criterion import BatchCriterion, Criterion
from worker.training.loop import Training
from worker.training.memory import within_memory


class MutualTraining(Training):
    """The student's training, with its peer's beside it: the peer takes every step that the student takes, and no other.

    Each has its optimizer, its best weights and its metrics; early stopping and progress are the student's. The peer's state is
    part of this one's.
    """

    def __init__(self, *arguments: Any, peer: Training, **options: Any) -> None:
        """``peer`` is a training of the same number of samples and steps; the other arguments are those of :class:`Training`.

        Raises:
            TypeError: a criterion does not compare outputs of a batch.
            UnfitTraining: see :class:`Training`.
        """
        super().__init__(*arguments, **options)
        self.peer = peer
        self._criteria = _compares_outputs(self.criterion), _compares_outputs(peer.criterion)
        if self.spec.micro_batch is not None and not all(criterion.is_divided for criterion in self._criteria):
            raise UnfitTraining(
                "micro_batch",
                "two networks that learn from each other read batches in parts only with one target, and a label for each sample",
                "Leave micro_batch out.",
            )
        peer.early_stopping = None
        peer.train_mode()

    def update(self, batches: list[Tensor]) -> None:
        """One optimizer step of each network over ``batches`` of sample indices."""
        for training, recorded in zip(
            (self, self.peer), within_memory(self, lambda: self._backpropagate_both(batches)), strict=True
        ):
            training.optimizer_step(recorded)

    def _backpropagate_both(self, batches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        both = (self, self.peer)
        num_samples = sum(map(len, batches))
        losses: tuple[list[Tensor], list[Tensor]] = ([], [])
        for indices in batches:
            for piece in self.pieces(indices):
                for training, loss, recorded in zip(both, self.losses(piece), losses, strict=True):
                    recorded.append(training.weighted(loss, fraction=len(indices) / num_samples))
                # In one backward pass: DDP averages the gradients of both networks together.
                torch.autograd.backward(
                    [training.scaler.scale(recorded[-1]) for training, recorded in zip(both, losses, strict=True)]
                )
        return losses

    @property
    def modules(self) -> list[nn.Module]:
        """Both networks."""
        return [self.module, self.peer.module]

    @property
    def read_beside(self) -> list[Samples]:
        """The peer's, as its own preprocessing reads them."""
        return [self.peer.samples]

    def batch_losses(self, indices: Tensor) -> Losses:
        ours, peers = self._criteria
        student, peer = ours.forward(indices, self.step_context), peers.forward(indices, self.peer.step_context)
        return ours.loss(_with_teacher(student, peer)), peers.loss(_with_teacher(peer, student))

    def divided_losses(self, parts: Sequence[Tensor]) -> Iterator[Callable[[], Losses]]:
        for part, share in zip(parts, self._criteria[0].shares(parts), strict=True):
            if share:
                yield lambda part=part, share=share: tuple(loss * share for loss in self.batch_losses(part))  # type: ignore[misc]

    def evaluate(self) -> None:
        """Evaluates both networks; each has its own best weights."""
        super().evaluate()
        if self.done:
            self.peer.last_step = self.step
        self.peer.evaluate()

    def read_losses(self) -> None:
        """Reads the losses of both networks."""
        super().read_losses()
        self.peer.read_losses()

    def take_points(self) -> dict[str, list[tuple[int, float]]]:
        """The metric points of both networks, whose names differ."""
        return super().take_points() | self.peer.take_points()

    def state(self) -> dict[str, Any]:
        """The states of both networks."""
        return super().state() | {"peer": self.peer.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores both networks."""
        super().restore(state)
        self.peer.restore(state["peer"])


def _compares_outputs(criterion: Criterion) -> BatchCriterion:
    if not isinstance(criterion, BatchCriterion):
        raise TypeError(f"{type(criterion).__name__} compares no outputs of two networks on a batch")
    return criterion


def _with_teacher(batch: DistillationBatch, teacher: DistillationBatch) -> DistillationBatch:
    return replace(batch, teacher=Outputs(teacher.student.logits.detach()))
