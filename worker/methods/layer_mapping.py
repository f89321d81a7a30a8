"""Maps a method to the layers of student and teacher that it compares, before either is trained. B batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from service.spec.methods import EmbeddingDistillation, terms_of
from worker.data.tensors import Inputs
from worker.methods import LayerPairs, LossContext, WeightedSum, build_loss
from worker.methods.layer_pairs import UnfitLayers, layers_of, output_width, shapes_of
from worker.targets import Targets


@dataclass(frozen=True)
class LayerMapping:
    """The layers of these two networks that a method compares, and their shapes."""

    method: Any
    pairs: tuple[LayerPairs, ...]
    """One for each term."""
    student_shapes: Mapping[str, torch.Size]
    teacher_shapes: Mapping[str, torch.Size]
    same_tokens: bool = True
    """Whether student and teacher read a text as the same tokens."""
    widths: tuple[int, int] = (0, 0)
    """Widths of the student's and the teacher's outputs, for a method that compares embeddings."""

    @property
    def student_layers(self) -> tuple[str, ...]:
        return tuple(self.student_shapes)

    def objective(self, *, targets: Targets, labels: Tensor) -> WeightedSum:
        """Builds the method's loss, with weights from torch's global generator. ``labels`` are the training split's.

        Raises:
            UnfitLayers: the method cannot compare these layers.
        """
        terms = []
        for term, pairs in zip(terms_of(self.method), self.pairs, strict=True):
            context = LossContext(targets, labels, pairs, self.student_shapes, self.teacher_shapes, self.same_tokens, self.widths)
            terms.append((term, build_loss(term, context)))
        return WeightedSum(terms, targets)


def map_layers(
    method: Any,
    *,
    student: nn.Module,
    teacher: nn.Module,
    student_inputs: Inputs,
    teacher_inputs: Inputs,
    same_tokens: bool = True,
) -> LayerMapping:
    """Finds the layers that a method compares and, by a forward pass on a few inputs (B, …), their shapes.

    Raises:
        UnknownLayer: a layer that the spec names is not there.
        UnfitLayers: a network offers no layers and the spec names none, or the teacher computes each sample alone.
    """
    pairs = tuple(layers_of(term, student=student, teacher=teacher) for term in terms_of(method))
    asks_widths = any(isinstance(term, EmbeddingDistillation) for term in terms_of(method))
    student_layers = list(dict.fromkeys(path for pair in pairs for path in pair.student))
    teacher_layers = list(dict.fromkeys(path for pair in pairs for path in pair.teacher))
    if teacher_layers and getattr(teacher, "reads_clips_alone", False):
        raise UnfitLayers(
            "the teacher's outputs depend on the silence behind a clip, so that it reads each clip alone, and its layers have no "
            "common length: cut or pad the clips to one length, or take a method of outputs, soft-targets say"
        )
    return LayerMapping(
        method,
        pairs,
        shapes_of(student, student_layers, student_inputs) if student_layers else {},
        shapes_of(teacher, teacher_layers, teacher_inputs) if teacher_layers else {},
        same_tokens,
        (output_width(student, student_inputs), output_width(teacher, teacher_inputs)) if asks_widths else (0, 0),
    )
