"""The objective of a training: its loss function, the layers that it compares, and the source of the teacher's outputs.

B batch, W outputs, L tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from worker.data.samples import Batch
from worker.methods import (
    DistillationBatch,
    Outputs,
    privileged_term,
)
from worker.targets import Targets, label_loss

TeacherFeatures = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor | None]]
"""From sample indices (B,) to the teacher's features of these samples, by layer, (B, …) each, and which tokens count (B, L)."""

TeacherOutputs = Callable[[Batch], Outputs]
"""From an augmented batch to the teacher's outputs and features on the batch's view."""

ExtraInputs = Callable[[Tensor, float], tuple[Tensor, ...]]
"""From the teacher's outputs (B, W) and the fraction of the steps done to further inputs of the student."""


@dataclass(frozen=True)
class TrainingObjective:
    """The function that a training minimises, and the outputs of the two networks that it reads."""

    objective: Callable[[DistillationBatch], Tensor]
    student_layers: tuple[str, ...] = ()
    teacher_features: TeacherFeatures = field(default=lambda indices: ({}, None))
    extra_inputs: ExtraInputs = field(default=lambda teacher_outputs, progress: ())
    """The student's inputs beside the sample."""
    per_step: TeacherOutputs | None = None
    """Computes the teacher's outputs in each step; None if they are precomputed, or there is no teacher."""

    def teacher_outputs(self, batch: Batch) -> Outputs | None:
        """The teacher's outputs on a batch of the training split, in float32 at least; None without a teacher."""
        if self.per_step is not None:
            return self.per_step(batch).at_least_float32()
        if batch.teacher_outputs is None:
            return None
        return Outputs(batch.teacher_outputs, *self.teacher_features(batch.indices)).at_least_float32()


def labels_only(targets: Targets) -> TrainingObjective:
    """The objective of a network without a teacher: the task's own loss."""
    return TrainingObjective(lambda batch: label_loss(targets, batch.student.logits, batch.labels, batch.mixture))


def extra_inputs(method: Any) -> ExtraInputs:
    """The further inputs of a student of this method: the teacher's outputs, and a mask of the samples that go without them.

    The mask is drawn from torch's global generator.
    """
    term = privileged_term(method)
    if term is None or not term.extra_input:
        return lambda teacher_outputs, progress: ()

    def inputs(teacher_outputs: Tensor, progress: float) -> tuple[Tensor, ...]:
        dropout = term.teacher_dropout + (1 - term.teacher_dropout) * min(1.0, progress / term.alone_after)
        return teacher_outputs, torch.rand(len(teacher_outputs), device=teacher_outputs.device) < dropout

    return inputs
