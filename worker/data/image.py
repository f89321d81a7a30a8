"""Images in memory: the splits that a spec asks for, with the preprocessing measured on the training split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from service.errors import InvalidFile
from service.formats import DataArrays, SplitArrays, read_dataset
from service.formats.chunk import take
from service.spec.data import DatasetSpec
from service.spec.fit import chosen_splits
from service.spec.source import split_source
from worker.data.builtin import BUILTIN_LOADERS
from worker.data.digits import MAX_PIXEL
from worker.data.errors import UnusableData
from worker.data.held_out import hold_out
from worker.data.preprocessing import Preprocessing, measure

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """Samples in one order. N samples, C channels, H height, W width."""

    images: Tensor
    """(N, C, H, W), uint8 or float32, as stored: :class:`Preprocessing` comes later."""
    labels: Tensor
    """(N,), int64."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """Everything that a job trains and is measured on."""

    splits: dict[SplitName, Split]
    classes: list[str]
    input_shape: tuple[int, int, int]
    """(channels, height, width)."""
    preprocessing: Preprocessing


def load_images(dataset: DatasetSpec, path: Path | None) -> ImageData:
    """Reads the dataset that the spec names; ``path`` is the local file of an uploaded or ``file:`` one, None for a builtin.

    Validation and test are the dataset's own splits where it has them, else held out of the training split by ``split_seed``. No
    global generator is touched.

    Raises:
        UnusableData: the samples cannot be trained on; the message names the split, row or column and what to change.
    """
    kind, name = split_source(dataset.source)
    if kind == "builtin":
        arrays, rescale_factor = _load_builtin(name)
    else:
        if path is None:
            raise UnusableData(f"{dataset.source} has no local file")
        arrays = _load_file(path, dataset)
        is_eight_bit = next(iter(arrays.splits.values())).inputs.dtype == np.uint8  # type: ignore[union-attr]
        rescale_factor = 1 / 255 if is_eight_bit else 1.0
    target = dataset.targets[0]
    splits = {part: _to_tensors(split, target) for part, split in _choose(dataset, arrays).items()}
    train = splits["train"]
    _, channels, height, width = train.images.shape
    return ImageData(
        splits=splits,
        classes=arrays.classes[target] or [],
        input_shape=(channels, height, width),
        preprocessing=measure(train.images, rescale_factor=rescale_factor),
    )


def _load_builtin(name: str) -> tuple[DataArrays, float]:
    if name not in BUILTIN_LOADERS:
        raise UnusableData(f"there is no builtin dataset {name!r}; there are {', '.join(BUILTIN_LOADERS)}")
    return BUILTIN_LOADERS[name](), 1 / MAX_PIXEL


def _load_file(path: Path, dataset: DatasetSpec) -> DataArrays:
    try:
        return read_dataset(
            path,
            filename=dataset.source,
            task="image-classification",
            input_column=dataset.input,
            target_columns=dataset.targets,
        )
    except InvalidFile as error:
        raise UnusableData(f"{dataset.source}: {error.detail}") from error
    except OSError as error:
        raise UnusableData(f"{dataset.source} cannot be read: {error}") from error


def _choose(dataset: DatasetSpec, arrays: DataArrays) -> dict[SplitName, SplitArrays]:
    names = chosen_splits(dataset, list(arrays.splits))
    own: dict[SplitName, str | None] = {"train": names.train, "validation": names.validation, "test": names.test}
    for part, name in own.items():
        if name is not None and name not in arrays.splits:
            there = ", ".join(map(repr, arrays.splits))
            raise UnusableData(f"the dataset has no split {name!r} to be the {part} split; it has {there}")
    train = arrays.splits[names.train]
    rows = hold_out(
        np.asarray(train.targets[dataset.targets[0]], dtype=np.int64),
        validation_fraction=None if names.validation is not None else dataset.validation_fraction,
        test_fraction=None if names.test is not None else dataset.test_fraction,
        seed=dataset.split_seed,
    )
    if len(rows) == 1:
        rows = {}
    chosen: dict[SplitName, SplitArrays] = {}
    for part, name in own.items():
        if part in rows:
            chosen[part] = SplitArrays(
                inputs=take(train.inputs, rows[part]),
                targets={column: take(values, rows[part]) for column, values in train.targets.items()},
            )
        elif name is not None:
            chosen[part] = arrays.splits[name]
    return chosen


def _to_tensors(split: SplitArrays, target: str) -> Split:
    return Split(
        images=torch.from_numpy(np.ascontiguousarray(split.inputs)), labels=torch.from_numpy(np.asarray(split.targets[target]))
    )
