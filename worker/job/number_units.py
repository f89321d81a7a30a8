"""Mean and scale of numbers that the training split does not tell: those of what their given teacher predicts there.

Invariant: both are rounded so far that the last bits of the teacher's outputs change nothing, on any device.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from worker.data import Data, Split
from worker.data.preprocessing import take
from worker.job.networks import Networks
from worker.targets import Target, Targets, standard_of

_MOST_ROWS = 1024


def standardise_by_teacher(networks: Networks) -> None:
    """Standardises the job's data by its given teachers, where the training split has no two labels of a number.

    Raises JobFault if a teacher cannot be used.
    """
    data = networks.data
    train = data.splits["train"]
    unlabelled = [
        index for index, target in enumerate(data.targets) if target.classes is None and _is_constant(train.labels[:, index])
    ]
    if not unlabelled:
        return
    rows = np.linspace(0, len(train) - 1, num=min(len(train), _MOST_ROWS)).astype(np.int64)
    some = Split(take(train.inputs, rows), train.labels[torch.from_numpy(rows)])
    targets = list(data.targets)
    for role in filter(lambda role: not networks.is_trained(role), networks.teachers):
        parts = data.targets.split(networks.load_pretrained(role).outputs(some).cpu())
        for index in unlabelled:
            if bool(parts[index].isfinite().all()):
                targets[index] = _measured(targets[index], parts[index][:, 0])
    settled = Targets(tuple(targets))
    networks.standardise(_restandardised(data, settled))


def _is_constant(labels: Tensor) -> bool:
    known = labels[~labels.isnan()]
    return len(known) == 0 or bool(known.min() == known.max())


def _measured(target: Target, values: Tensor) -> Target:
    mean, scale = standard_of(_in_own_unit(values, target))
    scale = 2.0 ** round(math.log2(scale))
    return replace(target, mean=round(mean / scale) * scale, scale=scale)


def _restandardised(data: Data, targets: Targets) -> Data:
    splits = {}
    for name, split in data.splits.items():
        columns = [
            ((_in_own_unit(column, before) - target.mean) / target.scale).to(column.dtype) if target != before else column
            for column, target, before in zip(split.labels.unbind(dim=1), targets, data.targets, strict=True)
        ]
        splits[name] = replace(split, labels=torch.stack(columns, dim=1))
    return replace(data, splits=splits, targets=targets)


def _in_own_unit(values: Tensor, target: Target) -> Tensor:
    return values.to(torch.float64) * target.scale + target.mean
