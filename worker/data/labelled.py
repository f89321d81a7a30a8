"""Samples with a class or a number for each of their targets. N samples, M targets."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from service.formats import DataArrays, SplitArrays
from service.spec.data import DatasetSpec
from worker.data.errors import UnusableData
from worker.data.split import Split, SplitName, places_of, stored_inputs
from worker.targets import Target, Targets, standard_of

_MOST_DEVIATIONS = 1e5
"""Numbers further from 0 than this many of their deviations lose more than 0.00002 of R² to float32; at ten million 0.08."""
_LEAST_SCALE = 1e-30


def labelled_samples(
    dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
) -> tuple[dict[SplitName, Split], Targets]:
    """Splits whose labels are those of the dataset's targets; numbers are standardised by the training split.

    Raises:
        UnusableData: the numbers of a target are beyond 32-bit floats, or all weights are 0.
    """
    targets = _targets(dataset, arrays, chosen["train"])
    splits = {
        part: Split(
            stored_inputs(split.inputs),
            _labels(split, targets),
            weights=_weights(split, dataset.weight) if part == "train" else None,
            part=part,
            places=places_of(split),
        )
        for part, split in chosen.items()
    }
    return splits, targets


def _weights(split: SplitArrays, column: str | None) -> Tensor | None:
    """The rows' weights (N,), by their mean. Raises UnusableData if all are 0."""
    if column is None:
        return None
    weights = torch.from_numpy(np.asarray(split.targets[column], dtype=np.float64))
    if not bool(weights.any()):
        raise UnusableData(f"all weights of the training split are 0 in column {column!r}: nothing would be learnt")
    return (weights / weights.mean()).to(torch.float32)


def append_unlabelled(labels: Tensor, count: int) -> Tensor:
    """Labels (N,) or (N, M), and those of ``count`` samples after them that have none."""
    missing = -1 if labels.dtype == torch.int64 else torch.nan
    return torch.cat([labels, labels.new_full((count, *labels.shape[1:]), missing)])


def _targets(dataset: DatasetSpec, arrays: DataArrays, train: SplitArrays) -> Targets:
    found = []
    for name in dataset.targets:
        classes = arrays.classes[name]
        if classes is None:
            found.append(_number(name, torch.from_numpy(np.asarray(train.targets[name]))))
        else:
            found.append(Target(name, tuple(classes), label_kind=arrays.label_kinds.get(name, "class")))
    return Targets(tuple(found))


def _number(name: str, values: Tensor) -> Target:
    mean, scale = standard_of(values)
    known = values[~values.isnan()]
    if abs(mean) > _MOST_DEVIATIONS * scale and bool(known.min() < known.max()):
        raise UnusableData(
            f"the numbers of {name!r} are around {mean:.10g} with a deviation of {scale:.3g}: 32-bit floats hardly tell them "
            f"apart; subtract {mean:.0f} from the column"
        )
    if not _LEAST_SCALE < scale < 1 / _LEAST_SCALE:
        raise UnusableData(
            f"the numbers of {name!r} have a deviation of {scale:.3g}, and the weights that give such numbers are beyond 32-bit "
            "floats: take another unit for the column"
        )
    return Target(name, None, mean=mean, scale=scale)


def _labels(split: SplitArrays, targets: Targets) -> Tensor:
    if targets.is_classification and targets.each[0].label_kind == "class":
        (target,) = targets
        return torch.from_numpy(np.asarray(split.targets[target.name]))
    columns = []
    for target in targets:
        values = torch.from_numpy(np.asarray(split.targets[target.name])).to(torch.float64)
        if target.label_kind != "class":
            columns.append(values.to(torch.float32))
            continue
        values = (values - target.mean) / target.scale if target.classes is None else values.where(values >= 0, torch.nan)
        columns.append(values.to(torch.float32).unsqueeze(1))
    return torch.cat(columns, dim=1) if columns else torch.empty(len(split.inputs), 0)
