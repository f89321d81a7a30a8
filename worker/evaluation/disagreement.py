"""Where a student's outputs differ most from its teacher's. N rows, W outputs.

Invariant: distances are computed some rows at a time.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.methods.response import bernoulli_divergence
from worker.targets import Target, Targets

_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class RowDisagreement:
    """One row of outputs, with what is said of it."""

    row: int
    target: str
    label: str | None
    teacher: str
    student: str
    distance: float


def largest_disagreements(
    teacher: Tensor,
    student: Tensor,
    labels: Tensor,
    targets: Targets,
    *,
    count: int,
    only: Collection[str] | None = None,
) -> list[RowDisagreement]:
    """The rows (N, W) of the largest distance of which the two say different things, each once, at most ``count``."""
    found: list[RowDisagreement] = []
    labels = labels.cpu()
    for index, (target, theirs, ours) in enumerate(zip(targets, targets.split(teacher), targets.split(student), strict=True)):
        if only is None or target.name in only:
            found += _of_target(target, theirs, ours, targets.labels_of(labels, index), count=count)
    by_row: dict[int, RowDisagreement] = {}
    for each in sorted(found, key=lambda each: -each.distance):
        by_row.setdefault(each.row, each)
    return list(by_row.values())[:count]


def _of_target(target: Target, teacher: Tensor, student: Tensor, labels: Tensor, *, count: int) -> Iterator[RowDisagreement]:
    size = max(1, _VALUES_AT_ONCE // teacher.shape[1])
    pieces = zip(torch.split(teacher, size), torch.split(student, size), strict=True)
    distances = torch.cat([_distances(target, theirs.to(ours.device), ours).cpu() for theirs, ours in pieces])
    values, rows = distances.topk(min(count, len(distances)))
    for distance, row in zip(values.tolist(), rows.tolist(), strict=True):
        if distance > 0:
            yield RowDisagreement(
                row,
                target.name,
                _label(target, labels[row]),
                _said(target, teacher[row].cpu().double()),
                _said(target, student[row].cpu().double()),
                distance,
            )


def _distances(target: Target, teacher: Tensor, student: Tensor) -> Tensor:
    """Distances of rows (N, the target's width), 0 where both say the same."""
    teacher, student = teacher.to(torch.float64), student.to(torch.float64)
    if target.classes is None:
        return (teacher - student).abs()[:, 0]
    if target.is_multi_label:
        apart = bernoulli_divergence(student, teacher, divergence="kl", temperature=1.0)
        return apart * (target.chosen(teacher) != target.chosen(student)).any(dim=1)
    theirs, ours = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    apart = (theirs.exp() * (theirs - ours)).sum(dim=1)
    return apart * (target.chosen(teacher) != target.chosen(student))


def _said(target: Target, outputs: Tensor) -> str:
    """What one row of outputs (the target's width,) says."""
    if target.classes is None:
        return f"{float(outputs[0]) * target.scale + target.mean:.6g}"
    if target.is_multi_label:
        return _names(target, outputs > 0)
    probability, index = outputs.softmax(dim=0).max(dim=0)
    return f"{target.classes[int(index)]} ({float(probability):.0%})"


def _label(target: Target, label: Tensor) -> str | None:
    if not bool(target.is_known(label)):
        return None
    if target.classes is None:
        return f"{float(label) * target.scale + target.mean:.6g}"
    decided = target.decided(label)
    return _names(target, decided) if target.is_multi_label else target.classes[int(decided)]


def _names(target: Target, chosen: Tensor) -> str:
    names = [name for name, said in zip(target.classes or (), chosen.tolist(), strict=True) if said]
    return ", ".join(names) or "none"
