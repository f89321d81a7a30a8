"""Mean and scale of numbers that some training rows lack: of the labels and of what given teachers predict there.

A student is taught both. A few labels that are almost equal are no measure of what a teacher predicts of the other rows.

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
    """Standardises the numbers that given teachers teach and that rows of the training split lack, by labels and teachers.

    Raises JobFault if a teacher cannot be used.
    """
    data = networks.data
    train = data.splits["train"]
    lacking = [
        index
        for index, target in enumerate(data.targets)
        if target.classes is None and bool(data.targets.labels_of(train.labels, index).isnan().any())
    ]
    given = [role for role in networks.specs.teachers if not networks.specs.is_trained(role)]
    if not lacking or not given:
        return
    rows = np.linspace(0, len(train) - 1, num=min(len(train), _MOST_ROWS)).astype(np.int64)
    some = Split(take(train.inputs, rows), train.labels[torch.from_numpy(rows)])
    targets = list(data.targets)
    taught = [data.targets.split(networks.load_pretrained(role).outputs(some).cpu()) for role in given]
    for index in lacking:
        values = [parts[index][:, 0] for parts in taught if bool(parts[index].isfinite().all())]
        if values:
            targets[index] = _measured(targets[index], torch.cat([*values, data.targets.labels_of(some.labels, index).flatten()]))
    settled = Targets(tuple(targets))
    networks.standardise(_restandardised(data, settled))


def _measured(target: Target, values: Tensor) -> Target:
    mean, scale = standard_of(_in_own_unit(values, target))
    scale = 2.0 ** round(math.log2(scale))
    return replace(target, mean=round(mean / scale) * scale, scale=scale)


def _restandardised(data: Data, targets: Targets) -> Data:
    splits = {}
    for name, split in data.splits.items():
        places = zip(targets.label_slices, targets, data.targets, strict=True)
        columns = [(split.labels[..., place], target, before) for place, target, before in places]
        renewed = [
            ((_in_own_unit(column, before) - target.mean) / target.scale).to(column.dtype) if target != before else column
            for column, target, before in columns
        ]
        splits[name] = replace(split, labels=torch.cat(renewed, dim=-1))
    return replace(data, splits=splits, targets=targets)


def _in_own_unit(values: Tensor, target: Target) -> Tensor:
    return values.to(torch.float64) * target.scale + target.mean
