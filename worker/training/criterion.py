"""The criterion of a training: from the samples of a batch to the loss that a step minimises.

A criterion owns all that the loss reads: the network, the samples, the layers that are compared, the teacher's outputs, and the
method's own weights. B batch, W outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worker.data.samples import Batch, Samples
from worker.distributed.ranks import ProcessGroup
from worker.evaluation.precision import Precision
from worker.methods import DistillationBatch, FeatureExtractor, Outputs, privileged_term
from worker.methods.batch import Loss, batch_label_loss
from worker.targets import Targets
from worker.training.micro_batch import Pieces, shares, two_passes

_PIECE_ROWS = 4096


@dataclass(frozen=True)
class StepContext:
    """Where a training stands, and how its forward passes are computed."""

    number: int
    """Steps done before this one."""
    steps_per_epoch: int
    last_step: int
    precision: Precision
    group: ProcessGroup

    @property
    def epoch(self) -> int:
        """The epoch of this step, from 0."""
        return self.number // self.steps_per_epoch

    @property
    def epochs_done(self) -> float:
        """Number of epochs done; a warm-up depends on it."""
        return self.number / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """Fraction of the steps done."""
        return self.number / self.last_step


class TeacherOutputs(Protocol):
    """The one source of a teacher's outputs on the training split: precomputed, per view, or computed in each step."""

    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's outputs and features on a batch's own view, without gradients."""

    def stored_bytes(self, num_samples: int) -> int:
        """Bytes of what was computed beforehand, if the split had so many samples; 0 if that depends on the number of epochs."""


class Criterion(ABC):
    """A loss on the samples of a training split."""

    @abstractmethod
    def __call__(self, indices: Tensor, step: StepContext) -> Tensor:
        """The loss, a scalar, on the samples ``indices`` (B,): the same on all ranks, each of which runs networks on its shard.

        Random numbers come from the global generators.
        """

    @abstractmethod
    def pieces(self, parts: Sequence[Tensor], step: StepContext) -> Pieces:
        """The loss of a batch in parts (b,) of its sample indices, for networks that read each sample alone."""

    @property
    def module(self) -> nn.Module | None:
        """Weights and buffers of the method's own, which are trained and checkpointed with the network's; None if it has none."""
        return None

    def stored_bytes(self, num_samples: int) -> int:
        """See :meth:`TeacherOutputs.stored_bytes`."""
        return 0


BuildCriterion = Callable[[nn.Module, Samples], Criterion]
"""From a network and its training split to the criterion, whose own weights come from torch's global generator."""

ExtraInputs = Callable[[Tensor, float], tuple[Tensor, ...]]
"""From the teacher's outputs (B, W) and the fraction of the steps done to further inputs of the student."""

PredictionMask = Callable[[Tensor], Tensor | None]
"""From labels (B, …), of which float ones have the targets last, to their places that are predictions, bool (B, …); None if each
sample is one."""


def _each_sample(labels: Tensor) -> None:
    return None


class BatchCriterion(Criterion):
    """A loss of the network's and its teacher's outputs on a batch; each rank computes that of the whole batch."""

    def __init__(
        self,
        network: nn.Module,
        samples: Samples,
        loss: Loss,
        *,
        layers: tuple[str, ...] = (),
        teacher_outputs: TeacherOutputs | None = None,
        extra_inputs: ExtraInputs | None = None,
        prediction_mask: PredictionMask = _each_sample,
        is_mean: bool = False,
    ) -> None:
        """``layers`` are those of the network that ``loss`` reads; ``extra_inputs`` are its inputs beside the sample.

        By default each sample is one prediction, and the sample is the only input. With a mask the logits are (B, …, W), and
        ``loss`` gets those of its M places, (M, W). ``is_mean`` says that it is a mean over predictions that have a label.
        """
        self.samples, self.loss = samples, loss
        self._extractor = FeatureExtractor(network, layers)
        self._teacher_outputs, self._extra_inputs = teacher_outputs, extra_inputs
        self._prediction_mask = prediction_mask
        self._is_mean = is_mean

    @property
    def module(self) -> nn.Module | None:
        return self.loss if isinstance(self.loss, nn.Module) else None

    def stored_bytes(self, num_samples: int) -> int:
        return 0 if self._teacher_outputs is None else self._teacher_outputs.stored_bytes(num_samples)

    def __call__(self, indices: Tensor, step: StepContext) -> Tensor:
        return self.loss(self.forward(indices, step))

    def pieces(self, parts: Sequence[Tensor], step: StepContext) -> Pieces:
        if self.is_divided:
            return self._divided(parts, step)

        def forward(part: Tensor, is_again: bool) -> DistillationBatch:
            return self.forward(part, step, with_teacher=not is_again or self._extra_inputs is not None)

        return two_passes(forward, self.loss, parts, group=step.group, device=self.samples.device)

    @cached_property
    def is_divided(self) -> bool:
        """Whether the loss of a batch is the mean over its predictions, however they are divided."""
        return self._is_mean and all(map(self._are_known, torch.split(self.samples.labels, _PIECE_ROWS)))

    def shares(self, parts: Sequence[Tensor]) -> list[float]:
        """Each part's share of the predictions of a batch."""
        masks = [self._mask(part) for part in parts]
        return shares([len(part) if mask is None else int(mask.sum()) for part, mask in zip(parts, masks, strict=True)])

    def _are_known(self, labels: Tensor) -> bool:
        """Whether all of these predictions have a label."""
        mask = self._prediction_mask(labels)
        chosen = labels if mask is None else labels[mask]
        return bool(((chosen >= 0) if not chosen.is_floating_point() else ~chosen.isnan()).all())

    def _mask(self, indices: Tensor) -> Tensor | None:
        """The places of predictions of some samples, where the data are: the mask of all would be as large as their labels."""
        return self._prediction_mask(self.samples.labels.index_select(0, indices.to(self.samples.home)))

    def _divided(self, parts: Sequence[Tensor], step: StepContext) -> Pieces:
        for part, share in zip(parts, self.shares(parts), strict=True):
            if share:  # of no predictions there is no mean
                yield partial(lambda part, share: self(part, step) * share, part, share)

    def forward(self, indices: Tensor, step: StepContext, *, with_teacher: bool = True) -> DistillationBatch:
        """The outputs of the network and of its teacher on the samples ``indices`` (B,), computed by shards."""
        own = step.group.shard(indices)
        with step.group.together():
            own_batch = self._run(own, step, with_teacher=with_teacher)
        return self._selected(step.group.gather_batch(own_batch, num_samples=len(indices)), indices)

    def _run(self, own: Tensor, step: StepContext, *, with_teacher: bool) -> DistillationBatch:
        """The outputs on this rank's shard (b,) of a batch."""
        batch = self.samples.batch(own, epoch=step.epoch)
        asked = self._teacher_outputs if with_teacher else None
        teacher = None if asked is None else asked(batch).at_least_float32()
        with step.group.rank_local_rng():
            extra = () if teacher is None or self._extra_inputs is None else self._extra_inputs(teacher.logits, step.progress)
            with step.precision.forward_pass():
                outputs = self._extractor(batch.inputs, *extra)
        return DistillationBatch(
            outputs.at_least_float32(),
            teacher,
            batch.labels,
            own.to(self.samples.device),
            step.epochs_done,
            batch.mixture,
            batch.weights,
        )

    def _selected(self, batch: DistillationBatch, indices: Tensor) -> DistillationBatch:
        """Leaves the predictions that count."""
        mask = self._mask(indices)  # on the device, the step would wait for the mask to be counted
        if mask is None:
            return batch
        # Labels of some samples of a split may be padded further than the outputs are.
        inside = tuple(slice(size) for size in batch.student.logits.shape[:-1])
        places = mask[inside].flatten().nonzero().squeeze(1).to(self.samples.device, non_blocking=True)

        def select(rows: Tensor) -> Tensor:
            return rows.flatten(0, len(inside) - 1).index_select(0, places)

        student = replace(batch.student, logits=select(batch.student.logits))
        teacher = batch.teacher and replace(batch.teacher, logits=select(batch.teacher.logits))
        return replace(batch, student=student, teacher=teacher, labels=select(batch.labels[inside]))


def label_criterion(
    network: nn.Module, samples: Samples, targets: Targets, *, prediction_mask: PredictionMask = _each_sample
) -> BatchCriterion:
    """The criterion of a network without a teacher: the task's own loss."""

    return BatchCriterion(
        network, samples, partial(batch_label_loss, targets), prediction_mask=prediction_mask, is_mean=targets.count_alike
    )


def extra_inputs(method: Any) -> ExtraInputs | None:
    """The further inputs of a student of this method: the teacher's outputs, and a mask of the samples that go without them.

    The mask is drawn from torch's global generator. None if the student reads the sample alone.
    """
    term = privileged_term(method)
    if term is None or not term.extra_input:
        return None

    def inputs(teacher_outputs: Tensor, progress: float) -> tuple[Tensor, ...]:
        dropout = term.teacher_dropout + (1 - term.teacher_dropout) * min(1.0, progress / term.alone_after)
        return teacher_outputs, torch.rand(len(teacher_outputs), device=teacher_outputs.device) < dropout

    return inputs
