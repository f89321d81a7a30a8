"""Arguments from which a method's loss is built. N samples, M targets; C channels, H height, W width of maps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.methods.compared import is_map
from worker.methods.layer_pairs import LayerPairs, UnfitLayers
from worker.targets import Targets


@dataclass(frozen=True)
class LossContext:
    """The data and the two networks that a term's loss is built for."""

    targets: Targets
    labels: Tensor
    """(N,) or (N, M), of the training split."""
    pairs: LayerPairs
    student_shapes: Mapping[str, torch.Size]
    """By module path, without the batch."""
    teacher_shapes: Mapping[str, torch.Size]
    same_tokens: bool = True
    """Whether student and teacher read a text as the same tokens; irrelevant to anything but text."""
    widths: tuple[int, int] = (0, 0)
    """Widths of the student's and the teacher's outputs, for a method that compares embeddings."""

    def shape_pairs(self) -> list[tuple[torch.Size, torch.Size]]:
        """Lists the shapes of each pair of layers, the student's first."""
        ours, theirs = self.pairs.student, self.pairs.teacher
        return [(self.student_shapes[one], self.teacher_shapes[other]) for one, other in zip(ours, theirs, strict=True)]

    def require_maps(self, name: str) -> None:
        """Raises UnfitLayers unless every compared layer gives maps (C, H, W); ``name`` is the method's."""
        for ours, theirs in self.shape_pairs():
            if not (is_map(ours) and is_map(theirs)):
                raise UnfitLayers(
                    f"{name} compares maps (channels, height, width), and these layers have shape {tuple(ours)} and "
                    f"{tuple(theirs)}: name others in layers"
                )

    def require_same_tokens(self, name: str) -> None:
        """Raises UnfitLayers if a layer has a row for each token, and student and teacher read a text as different tokens."""
        if self.same_tokens or not any(len(shape) == 2 for pair in self.shape_pairs() for shape in pair):
            return
        raise UnfitLayers(
            f"{name} compares token by token, and student and teacher read texts as other tokens: leave student.tokenizer out, "
            "so that the student reads as its teacher, or take a method that compares one vector for each text, such as rkd or "
            "pkt"
        )
