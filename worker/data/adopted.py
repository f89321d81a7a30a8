"""Data whose classes are a teacher's, where their own labels do not tell them: see :mod:`service.spec.teacher_classes`.

N samples, M targets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from service.spec.teacher_classes import adopted_classes
from worker.data.dataset import Data
from worker.targets import LabelKind, Target, Targets

Relabel = Callable[[Tensor, Targets, Targets], Tensor]
"""Makes labels of the same targets with other classes of some labels: :meth:`worker.tasks.Task.relabel`."""


def adopt_classes(data: Data, theirs: Targets, *, relabel: Relabel, teaches: Collection[str] | None = None) -> Data:
    """Takes the classes that the data do not tell from a teacher of ``theirs``; labels are numbered anew by their names."""
    if not len(data.targets):
        return data
    ours = {target.name: target.classes for target in data.targets}
    adopted = adopted_classes(ours, theirs.classes, teaches=teaches)
    alone = theirs.each[0].name if len(theirs) == 1 else None
    named = {target.name: target for target in theirs}
    taught = {name: named.get(name, named.get(alone or "")) for name in adopted if not ours[name]}
    kinds: dict[str, LabelKind] = {name: "labels" for name, each in taught.items() if each is not None and each.is_multi_label}
    return with_classes(data, adopted, relabel=relabel, kinds=kinds)


def with_classes(
    data: Data, adopted: Mapping[str, Sequence[str] | None], *, relabel: Relabel, kinds: Mapping[str, LabelKind] | None = None
) -> Data:
    """The data with other classes of some targets; None makes a target a number. Every class that has a row stays one.

    ``kinds`` are those of targets of which no row tells what its labels would be.
    """
    kinds = kinds or {}
    if not adopted:
        return data
    each = {target.name: target for target in data.targets}
    each |= {
        name: replace(
            each[name], classes=None if classes is None else tuple(classes), label_kind=kinds.get(name, each[name].label_kind)
        )
        for name, classes in adopted.items()
    }
    targets = replace(data.targets, each=tuple(each.values()))
    splits = {name: replace(split, labels=relabel(split.labels, data.targets, targets)) for name, split in data.splits.items()}
    return replace(data, targets=targets, splits=splits)


def unknown_classes(targets: Targets) -> list[str]:
    """The targets without any class so far."""
    return [target.name for target in targets if target.classes == ()]


def may_adopt(targets: Targets) -> bool:
    """Whether a teacher could tell the data's classes better than their labels do: there are none, or they are numbers."""
    return any(
        target.classes is not None and all(name == str(index) for index, name in enumerate(target.classes)) for target in targets
    )


def relabel_samples(labels: Tensor, before: Targets, after: Targets) -> Tensor:
    """Labels of the targets ``before`` as those of the same targets ``after``."""
    columns = [
        _renumbered(before.labels_of(labels, index), old, new) for index, (old, new) in enumerate(zip(before, after, strict=True))
    ]
    if after.is_classification:
        return columns[0]
    parts = [
        part
        if target.label_kind != "class"
        else (part.where(part >= 0, labels[..., place.start]) if target.classes is not None else part).unsqueeze(-1)
        for target, part, place in zip(after, columns, before.label_slices, strict=True)
    ]
    return torch.cat(parts, dim=-1)


def _renumbered(labels: Tensor, before: Target, after: Target) -> Tensor:
    """One target's labels: class indices below 0 where there is none, or numbers with NaN."""
    if after.label_kind != before.label_kind:  # no row has a label
        return torch.full((*labels.shape, after.width), torch.nan)
    if before.classes is None or before.classes == after.classes:
        return labels
    if after.classes is None:
        return torch.full(labels.shape, torch.nan)
    places = [after.classes.index(name) for name in before.classes]
    if after.label_kind != "class":
        wide = labels.new_zeros(*labels.shape[:-1], len(after.classes))
        wide[..., places] = labels
        return wide.where(before.is_known(labels).unsqueeze(-1), torch.nan)
    return torch.tensor([*places, -1])[labels.clamp(min=-1)].where(labels >= -1, labels)
