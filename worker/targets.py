"""What a network is to predict: one target or several, each with its own columns of the network's one output.

Invariant: the outputs (B, W) of every network of a job have the targets' columns side by side in the targets' order, a column a
class, or one for a number; a linear output layer of W columns is a head for each target on one body. Labels are (B,) class
indices for one target of classes, else (B, M), one column a target, with NaN where a sample has none. B batch, M targets,
W outputs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Target:
    """One column of the data that is to be predicted."""

    name: str
    classes: tuple[str, ...] | None
    """Of a classification; None for a number."""
    variance: float = 1.0
    """Of a number, on the training split."""

    @property
    def width(self) -> int:
        """Columns of the outputs that belong to it."""
        return 1 if self.classes is None else len(self.classes)


@dataclass(frozen=True)
class Targets:
    """All that a network is to predict, in order."""

    each: tuple[Target, ...]
    are_tokens: bool = False
    """Whether each next token is predicted, of a vocabulary that belongs to a network rather than to the data."""
    are_embeddings: bool = False
    """Whether each sample's vector is predicted: its teacher's, which stands in the labels' place, (N, D), once it was asked."""

    @classmethod
    def of_classes(cls, classes: Sequence[str], *, name: str = "label") -> "Targets":
        """The one target of a plain classification."""
        return cls((Target(name, tuple(classes)),))

    def __iter__(self) -> Iterator[Target]:
        return iter(self.each)

    def __len__(self) -> int:
        return len(self.each)

    @cached_property
    def width(self) -> int:
        """W."""
        return sum(target.width for target in self.each)

    @property
    def is_classification(self) -> bool:
        """Whether there is one target, of classes: what most of the literature is about."""
        return len(self.each) == 1 and self.each[0].classes is not None

    @property
    def classes(self) -> list[str]:
        """The name of each column of the outputs."""
        if self.is_classification:
            return list(self.each[0].classes or ())
        return [name for target in self.each for name in column_names(target)]

    @cached_property
    def _slices(self) -> tuple[slice, ...]:
        ends = [sum(target.width for target in self.each[: index + 1]) for index in range(len(self.each))]
        return tuple(slice(end - target.width, end) for end, target in zip(ends, self.each, strict=True))

    def split(self, outputs: Tensor) -> list[Tensor]:
        """Outputs (…, W) as one view for each target, (…, its width)."""
        return [outputs[..., part] for part in self._slices]

    def labels_of(self, labels: Tensor, index: int) -> Tensor:
        """One target's labels: class indices (B,) with −1 where there is none, or numbers (B,) with NaN."""
        if labels.dim() == 1:
            return labels
        column = labels[:, index]
        return column if self.each[index].classes is None else column.nan_to_num(nan=-1.0).to(torch.int64)


def column_names(target: Target) -> list[str]:
    """What its outputs are called among those of several targets."""
    return [target.name] if target.classes is None else [f"{target.name}: {name}" for name in target.classes]


@dataclass(frozen=True)
class MixedLabels:
    """What a batch of mixtures of two samples is labelled with beside the first ones' labels."""

    partner_labels: Tensor
    """(B,) or (B, M): of the second ones."""
    shares: Tensor
    """(B,), float32: of the first ones in the loss, ``share · ℓ(own) + (1 − share) · ℓ(partner's)``."""


def label_loss(targets: Targets, outputs: Tensor, labels: Tensor, mixture: MixedLabels | None = None) -> Tensor:
    """The task's own loss, what a network learns from when it has no teacher: the sum of :func:`target_losses`."""
    if targets.is_classification and mixture is None:
        return functional.cross_entropy(outputs, labels)
    return target_losses(targets, outputs, labels, mixture).sum()


def target_losses(targets: Targets, outputs: Tensor, labels: Tensor, mixture: MixedLabels | None = None) -> Tensor:
    """(M,): each target's mean over the samples that have a label for it, 0 where none has.

    Cross-entropy for classes; for a number the squared error in units of the number's variance, so that the scale of its column
    says nothing about its weight. Of a mixture each of the two labels counts by its share.
    """
    losses = []
    for index, (target, part) in enumerate(zip(targets, targets.split(outputs), strict=True)):
        errors, known = _errors(target, part, targets.labels_of(labels, index))
        if mixture is None:
            losses.append((errors * known).sum() / known.sum().clamp(min=1))
            continue
        others, others_known = _errors(target, part, targets.labels_of(mixture.partner_labels, index))
        own, other = mixture.shares * known, (1 - mixture.shares) * others_known
        weight = (own + other).sum().clamp(min=torch.finfo(torch.float32).tiny)
        losses.append((errors * own + others * other).sum() / weight)
    return torch.stack(losses)


def _errors(target: Target, outputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of one target's outputs (B, its width): each sample's error (B,), and whether it has a label (B,)."""
    if target.classes is None:
        return (outputs[:, 0] - wanted.nan_to_num(nan=0.0)).square() / target.variance, ~wanted.isnan()
    return functional.cross_entropy(outputs, wanted.clamp(min=0), reduction="none"), wanted >= 0


def variance_of(values: Tensor) -> float:
    """Variance of the numbers (N,) that are not NaN; 1 where they are all the same, so that it can be divided by."""
    known = values[~values.isnan()].to(torch.float64)
    variance = float(known.var(correction=0)) if len(known) else 0.0
    return variance if variance > 0 and math.isfinite(variance) else 1.0
