"""Data whose classes are a teacher's, where their own labels do not tell them: see :mod:`service.spec.teacher_classes`.

N samples, M targets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from service.spec.teacher_classes import adopted_classes
from worker.data.dataset import Data
from worker.targets import Target, Targets

Relabel = Callable[[Tensor, Targets, Targets], Tensor]
"""Makes labels of the same targets with other classes of some labels: :meth:`worker.tasks.Task.relabel`."""


def adopt_classes(data: Data, theirs: Targets, *, relabel: Relabel, teaches: Collection[str] | None = None) -> Data:
    """Takes the classes that the data do not tell from a teacher of ``theirs``; labels are numbered anew by their names."""
    if not len(data.targets):
        return data
    ours = {target.name: target.classes for target in data.targets}
    return with_classes(data, adopted_classes(ours, theirs.classes, teaches=teaches), relabel=relabel)


def with_classes(data: Data, adopted: Mapping[str, Sequence[str] | None], *, relabel: Relabel) -> Data:
    """The data with other classes of some targets; None makes a target a number. Every class that has a row stays one."""
    if not adopted:
        return data
    each = {target.name: target for target in data.targets}
    each |= {name: Target(name, None if classes is None else tuple(classes)) for name, classes in adopted.items()}
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
        part.where(part >= 0, labels[..., index]) if target.classes is not None else part
        for index, (target, part) in enumerate(zip(after, columns, strict=True))
    ]
    return torch.stack(parts, dim=-1)


def _renumbered(labels: Tensor, before: Target, after: Target) -> Tensor:
    """One target's labels: class indices below 0 where there is none, or numbers with NaN."""
    if before.classes is None or before.classes == after.classes:
        return labels
    if after.classes is None:
        return torch.full(labels.shape, torch.nan)
    places = [after.classes.index(name) for name in before.classes]
    return torch.tensor([*places, -1])[labels.clamp(min=-1)].where(labels >= -1, labels)
