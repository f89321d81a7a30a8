"""How a student is taught: its objective, the layers that the objective looks at, and the teacher's outputs for each sample.

The teacher is asked once about the whole training split where its answers fit into memory; what is too large, inner layers of
large datasets, is asked for batch by batch. Of an augmented split, whose samples have another view in each epoch, the teacher is
asked in each step about the very view that the student sees (consistent teaching: Beyer et al., Knowledge distillation: A good
teacher is patient and consistent, 2022, arXiv:2106.05237). N samples, B batch, W outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.data import Preprocessing
from worker.evaluation import EVALUATION_BATCH, in_eval_mode
from worker.methods import (
    Objective,
    Outputs,
    Pairs,
    Setting,
    Step,
    Tap,
    build_term,
    informed_by,
    layers_of,
    shapes_of,
    terms_of,
)
from worker.methods.compared import padded_together
from worker.samples import Batch, Samples
from worker.targets import Targets, label_loss

ASK_ONCE_BYTES = 512 * 2**20
"""Features above this size in all are computed in each step instead."""

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
            setting = Setting(targets, labels, pairs, self.student_shapes, self.teacher_shapes, self.same_tokens)
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
    student_layers = list(dict.fromkeys(path for pair in pairs for path in pair.student))
    teacher_layers = list(dict.fromkeys(path for pair in pairs for path in pair.teacher))
    return Plan(
        method,
        pairs,
        shapes_of(student, student_layers, student_inputs) if student_layers else {},
        shapes_of(teacher, teacher_layers, teacher_inputs) if teacher_layers else {},
        same_tokens,
    )


def ask(
    teacher: nn.Module, samples: Samples, layers: Mapping[str, torch.Size], *, after_batch: Callable[[int], None]
) -> tuple[Tensor, TeacherFeatures]:
    """The teacher's outputs (N, W) for all samples, in float32, and its features.

    ``samples`` are behind the teacher's own preprocessing. ``layers`` gives each layer's shape without the batch. ``after_batch``
    is told how many samples are done, and may raise, to end it.
    """
    num_bytes = 4 * len(samples) * sum(_most_values(shape, samples) for shape in layers.values())
    kept = layers if num_bytes <= ASK_ONCE_BYTES else {}
    whole_outputs: list[Tensor] = []
    features: dict[str, list[Tensor]] = {path: [] for path in kept}
    counted: list[Tensor] = []
    with in_eval_mode(teacher), Tap(teacher, list(kept)) as tap:
        for start in range(0, len(samples), EVALUATION_BATCH):
            outputs = tap(samples.inputs_from(start, EVALUATION_BATCH))
            whole_outputs.append(outputs.logits.to(torch.float32))
            for path, pieces in features.items():
                pieces.append(outputs.features[path].to(torch.float32))
            if outputs.counted is not None:
                counted.append(outputs.counted)
            after_batch(min(start + EVALUATION_BATCH, len(samples)))
    if kept != layers:
        return torch.cat(whole_outputs), _asking(teacher, samples, list(layers))
    whole = {path: padded_together(pieces) for path, pieces in features.items()}
    whole_counted = padded_together(counted) if counted else None

    def looked_up(indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        return {path: _chosen(each, indices) for path, each in whole.items()}, (
            None if whole_counted is None else _chosen(whole_counted, indices)
        )

    return torch.cat(whole_outputs), looked_up


def _most_values(shape: torch.Size, samples: Samples) -> int:
    """Of one sample's features; tokens (L, D) may be as many as the longest text has."""
    stored = samples.inputs
    is_tokens = len(shape) == 2 and stored.dim() == 2 and not stored.is_floating_point()
    return max(shape[0], stored.shape[1]) * shape[1] if is_tokens else shape.numel()


def _chosen(whole: Tensor, indices: Tensor) -> Tensor:
    return whole.index_select(0, indices.to(whole.device))


def ask_each_view(
    teacher: nn.Module,
    samples: Samples,
    layers: Mapping[str, torch.Size],
    *,
    preprocessing: Preprocessing,
    in_order: Callable[[Tensor], Tensor],
) -> Answers:
    """Asks the teacher, behind its own preprocessing, about each batch of the student's augmented ``samples``.

    ``in_order`` brings the teacher's outputs into the order of the job's.
    """
    tap = Tap(teacher, list(layers))

    def answers(batch: Batch) -> Outputs:
        inputs = samples.view_for(batch, preprocessing)
        with in_eval_mode(teacher):
            outputs = tap(inputs)
        return replace(outputs, logits=in_order(outputs.logits))

    return answers


def _asking(teacher: nn.Module, samples: Samples, layers: list[str]) -> TeacherFeatures:
    tap = Tap(teacher, layers)

    def asked(indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        inputs = samples.batch(indices).inputs
        with in_eval_mode(teacher):
            outputs = tap(inputs)
        return outputs.features, outputs.counted

    return asked
