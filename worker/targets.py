"""The targets that a network predicts, each with its own columns of the network's one output, and the loss with their labels.

Invariant: the outputs (B, W) of every network of a job have the targets' columns side by side in the targets' order, a column a
class, or one for a number; a linear output layer of W columns is a head for each target on one body. Labels are (B,) class
indices for one target of classes, with −1 where a sample has none, else (B, M), one column a target, with NaN there. A target
whose classes do not exclude each other, or whose labels are probabilities, has a column a class instead: 0 and 1, or shares.
Numbers, in labels and in outputs, are standardised: ``(number − mean) / scale`` of their target. Where the parts of a sample have
labels of their own, as words have, labels are (B, K) or (B, K, M), with a class below −1 or −∞ behind a sample's last part. B
batch, K parts, M targets, W outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LabelKind = Literal["class", "labels", "probabilities"]
"""The one class of a sample; any of the classes, each a yes or no by itself; or how probable each class is, 1 together."""


@dataclass(frozen=True)
class Target:
    """One column of the data that a network predicts."""

    name: str
    classes: tuple[str, ...] | None
    """Names of the classes; None for a number."""
    mean: float = 0.0
    """Of a number, the value that counts as 0; of the training split's labels, see :func:`standard_of`."""
    scale: float = 1.0
    """Of a number, the difference that counts as 1: the standard deviation of the training split's labels."""
    label_kind: LabelKind = field(default="class", repr=False)
    """Of classes, what a label is."""
    class_weights: tuple[float, ...] | None = field(default=None, repr=False)
    """Of classes in a training, the weight of each one's labels in the label loss; None for 1."""
    label_smoothing: float = field(default=0.0, repr=False)
    """Of classes in a training, the share of each label that is spread evenly over all classes."""

    @property
    def width(self) -> int:
        """Number of columns of the outputs that belong to it."""
        return 1 if self.classes is None else len(self.classes)

    @property
    def is_multi_label(self) -> bool:
        """Whether its classes do not exclude each other: each output is a class's own, through a sigmoid."""
        return self.label_kind == "labels"

    @property
    def label_width(self) -> int:
        """Number of columns of the labels that belong to it."""
        return 1 if self.label_kind == "class" else self.width

    def is_known(self, labels: Tensor) -> Tensor:
        """Tells which of its labels, as :meth:`Targets.labels_of` selects them, are there: bool, one for each sample or part."""
        if self.label_kind != "class":
            return labels.isfinite().all(dim=-1)
        return labels.isfinite() if self.classes is None else labels >= 0

    def chosen(self, outputs: Tensor) -> Tensor:
        """What outputs (…, its width) of classes decide: the class (…), or bool (…, C) of classes that do not exclude each other,
        each from a probability of 0.5 on."""
        return outputs > 0 if self.is_multi_label else outputs.argmax(dim=-1)

    def decided(self, labels: Tensor) -> Tensor:
        """Its labels of classes as :meth:`chosen` gives them, of probabilities the most probable class; −1 where it has none."""
        match self.label_kind:
            case "class":
                return labels
            case "labels":
                return labels > 0
            case "probabilities":
                return labels.nan_to_num(nan=0.0).argmax(dim=-1).where(self.is_known(labels), -1)

    def count(self, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """How many of its labels are of each class (C,), shares of probabilities, each times its weight."""
        known = self.is_known(labels)
        labels, weights = labels[known].cpu(), None if weights is None else weights[known].cpu().double()
        if self.label_kind == "class":
            return torch.bincount(labels, weights, minlength=self.width)
        return (labels.double() if weights is None else labels.double() * weights[:, None]).sum(dim=0)


@dataclass(frozen=True)
class Targets:
    """All targets of a network, in order."""

    each: tuple[Target, ...]
    """None where the data have no columns to predict: of a causal language model, or of an encoder of texts."""

    @classmethod
    def of_classes(cls, classes: Sequence[str], *, name: str = "label") -> "Targets":
        """Builds the one target of a plain classification."""
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
        """Whether there is one target, of classes of which a sample has one, as in most of the literature."""
        return self.has_classes_alone and not self.each[0].is_multi_label

    @property
    def has_classes_alone(self) -> bool:
        """Whether there is one target, of classes, which then need not be named after it."""
        return len(self.each) == 1 and self.each[0].classes is not None

    @property
    def count_alike(self) -> bool:
        """Whether all labels count the same in the label loss: its mean is one over predictions, however they are divided."""
        return len(self.each) <= 1 and all(each.class_weights is None or each.label_kind != "class" for each in self.each)

    @property
    def classes(self) -> list[str]:
        """The name of each column of the outputs."""
        if self.has_classes_alone:
            return list(self.each[0].classes or ())
        return [name for target in self.each for name in column_names(target)]

    @cached_property
    def _slices(self) -> tuple[slice, ...]:
        ends = [sum(target.width for target in self.each[: index + 1]) for index in range(len(self.each))]
        return tuple(slice(end - target.width, end) for end, target in zip(ends, self.each, strict=True))

    @cached_property
    def label_slices(self) -> tuple[slice, ...]:
        """Where each target has its columns in float labels."""
        ends = [sum(target.label_width for target in self.each[: index + 1]) for index in range(len(self.each))]
        return tuple(slice(end - target.label_width, end) for end, target in zip(ends, self.each, strict=True))

    def split(self, outputs: Tensor) -> list[Tensor]:
        """Splits outputs (…, W) into one view for each target, (…, its width)."""
        return [outputs[..., part] for part in self._slices]

    @cached_property
    def units(self) -> tuple[Tensor, Tensor] | None:
        """Scale and mean (W,) of each output, float64, 1 and 0 for a class; None if every number is in its own unit already."""
        if all((target.mean, target.scale) == (0.0, 1.0) for target in self):
            return None
        scales = [target.scale for target in self for _ in range(target.width)]
        means = [target.mean for target in self for _ in range(target.width)]
        return torch.tensor(scales, dtype=torch.float64), torch.tensor(means, dtype=torch.float64)

    def standardise(self, outputs: Tensor) -> Tensor:
        """Converts outputs (…, W) whose numbers are in the data's units."""
        if self.units is None:
            return outputs
        scale, mean = (each.to(outputs.device) for each in self.units)
        return ((outputs.to(torch.float64) - mean) / scale).to(outputs.dtype)

    def labels_of(self, labels: Tensor, index: int) -> Tensor:
        """Selects one target's labels, (B,) or of parts (B, K): class indices, −1 where there is none, or numbers, NaN there.

        Of a target with a column a class they are (B, C), NaN there.
        """
        if not labels.is_floating_point():
            return labels
        target, place = self.each[index], self.label_slices[index]
        if target.label_kind != "class":
            return labels[..., place]
        column = labels[..., place.start]
        return column if target.classes is None else column.nan_to_num(nan=-1.0, neginf=-2.0).to(torch.int64)

    def known(self, labels: Tensor) -> list[Tensor]:
        """Tells which samples have a label, themselves or for a part, for each target: (N,) bool."""
        each = [target.is_known(self.labels_of(labels, index)) for index, target in enumerate(self)]
        return [known.flatten(1).any(dim=1) if known.dim() > 1 else known for known in each]


def column_names(target: Target) -> list[str]:
    """Names a target's columns among those of several targets."""
    return [target.name] if target.classes is None else [f"{target.name}: {name}" for name in target.classes]


@dataclass(frozen=True)
class MixedLabels:
    """The labels of a batch of mixtures of two samples, beside the first samples' own labels."""

    partner_labels: Tensor
    """(B,) or (B, M): labels of the second samples."""
    shares: Tensor
    """(B,), float32: shares of the first samples in the loss, ``share · ℓ(own) + (1 − share) · ℓ(partner's)``."""
    partner_weights: Tensor | None = None
    """(B,): weights of the second samples; None where samples have none."""


def label_loss(
    targets: Targets, outputs: Tensor, labels: Tensor, mixture: MixedLabels | None = None, *, weights: Tensor | None = None
) -> Tensor:
    """Computes the task's own loss, by which a network without a teacher is trained: the sum of :func:`target_losses`.

    It counts the samples that have a label, and is 0, without a gradient, if none has one.
    """
    if not labels.is_floating_point() and mixture is None and weights is None:
        (target,) = targets
        loss = functional.cross_entropy(
            outputs,
            labels,
            weight=_class_weights(target, outputs),
            ignore_index=-1,
            label_smoothing=target.label_smoothing,
        )
        return torch.where((labels >= 0).any(), loss, 0.0)
    return target_losses(targets, outputs, labels, mixture, weights=weights).sum()


def target_losses(
    targets: Targets, outputs: Tensor, labels: Tensor, mixture: MixedLabels | None = None, *, weights: Tensor | None = None
) -> Tensor:
    """Computes each target's mean loss (M,) over the samples that have a label for it, 0 if none has.

    Cross-entropy for classes, with probabilities too; for classes that do not exclude each other the mean of their binary
    cross-entropies, with labels (1 − smoothing) · y + smoothing / 2, where a class's weight is that of its ones; for a number the
    squared error, which is in units of the number's variance, so that the scale of its column does not affect its weight. In a
    mixture each of the two labels counts by its share. Where classes have weights, the mean is weighted by those of the labels,
    as is torch's cross-entropy. ``weights`` (B,) multiply the samples' errors.
    """
    losses = []
    for index, (target, part) in enumerate(zip(targets, targets.split(outputs), strict=True)):
        errors, counts = _errors(target, part, targets.labels_of(labels, index), weights)
        if mixture is not None:
            theirs = targets.labels_of(mixture.partner_labels, index)
            others, others_count = _errors(target, part, theirs, mixture.partner_weights)
            own, other = mixture.shares, 1 - mixture.shares
            errors, counts = errors * own + others * other, counts * own + others_count * other
        losses.append(errors.sum() / _at_least_one_label(counts))
    return torch.stack(losses)


def _errors(target: Target, outputs: Tensor, wanted: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Computes each sample's weighted error (B,), 0 without a label, and what its label counts for in the mean (B,)."""
    errors, counts = _own_errors(target, outputs, wanted)
    return errors if weights is None else errors * weights, counts


def _own_errors(target: Target, outputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    known = target.is_known(wanted)
    if target.classes is None:
        return (outputs[:, 0] - wanted.nan_to_num(nan=0.0)).square() * known, known
    weights = _class_weights(target, outputs)
    if target.label_kind != "class":
        wanted = wanted.nan_to_num(nan=0.0).to(outputs.dtype)
        if target.is_multi_label:
            wanted = wanted * (1 - target.label_smoothing) + target.label_smoothing / 2
            errors = functional.binary_cross_entropy_with_logits(outputs, wanted, pos_weight=weights, reduction="none")
            return errors.mean(dim=-1) * known, known
        smoothing = target.label_smoothing
        errors = functional.cross_entropy(outputs, wanted, weight=weights, reduction="none", label_smoothing=smoothing)
        return errors * known, known
    wanted = wanted.clamp(min=0)
    errors = functional.cross_entropy(outputs, wanted, weight=weights, reduction="none", label_smoothing=target.label_smoothing)
    return errors * known, known if weights is None else weights[wanted] * known


def _at_least_one_label(counts: Tensor) -> Tensor:
    """The sum of what labels (B,) count for, or where it is 0, as no sample has a label, what may be divided by."""
    return counts.sum().clamp(min=torch.finfo(torch.float32).tiny if counts.is_floating_point() else 1)


def _class_weights(target: Target, outputs: Tensor) -> Tensor | None:
    """The weights of a target's classes (C,) where its outputs are, and in their type; None for 1."""
    return None if target.class_weights is None else _tensor(target.class_weights, outputs.dtype, outputs.device)


@lru_cache(maxsize=64)
def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept, as a step that copied it to a GPU would wait for it."""
    return torch.tensor(values, dtype=dtype, device=device)


def has_labels(labels: Tensor) -> bool:
    """Whether any of the labels is there."""
    known = labels.isfinite() if labels.is_floating_point() else labels >= 0
    return bool(known.any())


def standard_of(values: Tensor) -> tuple[float, float]:
    """Computes mean and scale of the finite ones of the numbers (N,), in float64: what is subtracted, and divided by then.

    The scale is the standard deviation; 1 if all numbers are equal. A mean within half of it is left at 0: such numbers are
    learned as they are, also by a network whose outputs have no place for an offset.
    """
    known = values[values.isfinite()].to(torch.float64)
    if not len(known):
        return 0.0, 1.0
    if bool(known.min() == known.max()):
        return float(known[0]), 1.0
    mean, deviation = float(known.mean()), float(known.std(correction=0))
    return (mean if abs(mean) > deviation / 2 else 0.0), deviation
