"""How a student is taught: its objective, the layers that the objective looks at, and what it hears of its teacher.

B batch, W outputs, L tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from service.spec.methods import EmbeddingDistillation
from worker.data.samples import Batch
from worker.methods import (
    Objective,
    Outputs,
    Pairs,
    Setting,
    Step,
    build_term,
    informed_by,
    layers_of,
    output_width,
    shapes_of,
    terms_of,
)
from worker.targets import Targets, label_loss

TeacherFeatures = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor | None]]
"""From sample indices (B,) to the teacher's features of these samples, by layer, (B, …) each, and which tokens count (B, L)."""

Answers = Callable[[Batch], Outputs]
"""From an augmented batch to the teacher's outputs and features for the view that it shows."""

ExtraInputs = Callable[[Tensor, float], tuple[Tensor, ...]]
"""From the teacher's outputs (B, W) and the share of the steps done to further inputs of the student."""


@dataclass(frozen=True)
class Teaching:
    """What a training minimises, and what of the two networks it looks at."""

    objective: Callable[[Step], Tensor]
    student_layers: tuple[str, ...] = ()
    teacher_features: TeacherFeatures = field(default=lambda indices: ({}, None))
    extra_inputs: ExtraInputs = field(default=lambda taught, progress: ())
    """What the student reads beside the sample."""
    answers: Answers | None = None
    """Asks in each step; None where the teacher was asked beforehand, or there is none."""

    def taught(self, batch: Batch) -> Outputs | None:
        """What the teacher says to a batch of the training split, in float32 at least."""
        if self.answers is not None:
            return self.answers(batch).at_least_float32()
        if batch.teacher_outputs is None:
            return None
        return Outputs(batch.teacher_outputs, *self.teacher_features(batch.indices)).at_least_float32()


def labels_only(targets: Targets) -> Teaching:
    """What a network without a teacher learns from."""
    return Teaching(lambda step: label_loss(targets, step.student.logits, step.labels, step.mixture))


@dataclass(frozen=True)
class Plan:
    """What a method looks at in these two networks, found before either is trained."""

    method: Any
    pairs: tuple[Pairs, ...]
    """By term."""
    student_shapes: Mapping[str, torch.Size]
    teacher_shapes: Mapping[str, torch.Size]
    same_tokens: bool = True
    """Whether the two read a text as the same tokens."""
    widths: tuple[int, int] = (0, 0)
    """Of the student's and the teacher's outputs, where the method asks."""

    @property
    def student_layers(self) -> tuple[str, ...]:
        return tuple(self.student_shapes)

    def objective(self, *, targets: Targets, labels: Tensor) -> Objective:
        """The method's objective; its own weights come from torch's global generator. ``labels`` are the training split's.

        Raises:
            UnfitLayers: the method cannot compare these layers.
        """
        terms = []
        for term, pairs in zip(terms_of(self.method), self.pairs, strict=True):
            setting = Setting(targets, labels, pairs, self.student_shapes, self.teacher_shapes, self.same_tokens, self.widths)
            terms.append((term, build_term(term, setting)))
        return Objective(terms, targets)


def extra_inputs(method: Any) -> ExtraInputs:
    """What a student of this method reads beside the sample: the teacher's outputs, and which samples do without them.

    Those are drawn from torch's global generator.
    """
    term = informed_by(method)
    if term is None or not term.extra_input:
        return lambda taught, progress: ()

    def inputs(taught: Tensor, progress: float) -> tuple[Tensor, ...]:
        share = term.teacher_dropout + (1 - term.teacher_dropout) * min(1.0, progress / term.alone_after)
        return taught, torch.rand(len(taught), device=taught.device) < share

    return inputs


def plan(
    method: Any,
    *,
    student: nn.Module,
    teacher: nn.Module,
    student_inputs: Tensor,
    teacher_inputs: Tensor,
    same_tokens: bool = True,
) -> Plan:
    """Finds the layers and, on a few inputs (B, …) of each network, their shapes.

    Raises:
        UnknownLayer: a layer that the spec names is not there.
        UnfitLayers: a network offers no layers and the spec names none.
    """
    pairs = tuple(layers_of(term, student=student, teacher=teacher) for term in terms_of(method))
    asks_widths = any(isinstance(term, EmbeddingDistillation) for term in terms_of(method))
    student_layers = list(dict.fromkeys(path for pair in pairs for path in pair.student))
    teacher_layers = list(dict.fromkeys(path for pair in pairs for path in pair.teacher))
    return Plan(
        method,
        pairs,
        shapes_of(student, student_layers, student_inputs) if student_layers else {},
        shapes_of(teacher, teacher_layers, teacher_inputs) if teacher_layers else {},
        same_tokens,
        (output_width(student, student_inputs), output_width(teacher, teacher_inputs)) if asks_widths else (0, 0),
    )
