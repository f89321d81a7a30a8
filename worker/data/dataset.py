"""A dataset in memory: the splits that a spec names, with stored inputs and labels as tensors.

Validation and test are the dataset's own splits where it has them, else held out of the training split by ``split_seed``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from service.errors import InvalidFile
from service.formats import DataArrays, EncodedImage, RowPlaces, SplitArrays, read_dataset
from service.spec.data import DatasetSpec, why_not_named
from service.spec.data_fit import listed, transfer_split
from service.spec.source import split_source
from service.spec.tasks import TASKS, TaskName
from service.spec.warning_message import WarningMessage
from worker.data.builtin import BUILTIN_LOADERS
from worker.data.builtin.digits import MAX_PIXEL
from worker.data.chosen_parts import choose_parts
from worker.data.disk.read_choice import BUILTIN, ReadChoice, choose_reading
from worker.data.disk.stored import Reading, StoredInputs, stored_splits
from worker.data.epoch import TransferRows
from worker.data.errors import UnusableData
from worker.data.images.canvas import Canvas, WholeImages
from worker.data.images.canvas_choice import (
    ProcessorGeometry,
    canvas_warning,
    check_channels,
    choose_canvas,
    examples_of,
    files_among,
    files_of,
    on_canvas,
)
from worker.data.images.pixel_range import PixelRange, pixel_range
from worker.data.preprocessing import RawInputs
from worker.data.split import Split, SplitName, is_images, places_of, stored_inputs
from worker.targets import Targets

_OF_LABELS = {"unlabelled", "lone_folder"}
"""Warnings that say nothing of transfer rows, which have no labels in any case."""


@dataclass(frozen=True)
class Data:
    """All samples that a job is trained and scored on."""

    task: TaskName
    splits: dict[SplitName, Split]
    targets: Targets
    max_value: float | None = None
    """Greatest possible value of a stored pixel; None for floating-point images and for other inputs."""
    canvas: Canvas | None = None
    """What the images were fitted to; None for other inputs, and for images that are as they were stored."""
    clip_seconds: float = 10.0
    """Seconds at which clips of sound are cut."""
    row_tokens: int | None = None
    """Tokens at which the rows of a causal language model are cut, if the spec has a limit."""
    chat_template: str | None = None
    """By which all networks write chats, in the place of their own; None where each has one."""
    warnings: tuple[WarningMessage, ...] = ()
    """What of the dataset takes no part in the job, and what was read otherwise than one might think."""
    rows_by_split: Mapping[str, int] = field(default_factory=dict)
    """Rows of every split of the dataset, used or not."""
    read: ReadChoice = BUILTIN
    """Where the samples are, and why."""

    @cached_property
    def pixel_range(self) -> PixelRange:
        """The range of the pixels of all splits; of images alone. Raises UnusableData if the splits have different ones."""
        parts = {f"the {name} split": split.own.inputs for name, split in self.splits.items()}
        parts |= {"the transfer rows": self.splits["train"].transferred.inputs}
        return pixel_range(parts, max_value=self.max_value)


class TaskSamples(Protocol):
    """What of a task its data are made by; :class:`worker.tasks.Task` is one."""

    name: ClassVar[TaskName]

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        """The splits that were chosen of a reader's arrays, and what is to be predicted. Raises UnusableData."""

    def append_unlabelled(self, labels: Tensor, inputs: RawInputs) -> Tensor:
        """Labels of a split, with those of ``inputs`` after them, which have none."""

    def learns_without_teacher(self, labels: Tensor) -> bool:
        """Whether samples of these labels teach anything without a teacher's outputs."""


def load_data(
    dataset: DatasetSpec,
    path: Path | None,
    *,
    task: TaskSamples,
    transfer: Path | None = None,
    without_labels: Collection[str] = (),
    given: Mapping[str, ProcessorGeometry] | None = None,
    takes_windows: bool = False,
    reading: Reading | None = None,
) -> Data:
    """Reads the dataset that the spec names; ``path`` is the local file of an uploaded or ``file:`` dataset, None for a builtin.

    ``transfer`` is the local file of the spec's transfer rows, which become the last of the training split. ``without_labels``
    names the targets that can be learned without: parts that are held out may lack a rare class of them. ``given`` are the
    geometries of given networks, which choose the canvas of images where the spec does not, and ``takes_windows`` keeps the whole
    images of the training split too. ``reading`` says how samples are read that stay on disk; without it all are read into
    memory. Uses no global random generator.

    Raises:
        NoCanvas: images are of several sizes, and nothing says which they are to have.
        UnusableData: the samples cannot be trained on; the message names the split, row or column and what to change.
    """
    folders = [path] if dataset.transfer is None else [path, transfer]
    read = choose_reading("memory" if reading is None else dataset.read, folders, task=task.name)
    reading, as_files = reading if read.source == "shards" else None, dataset.image is not None
    arrays, max_value = _load(
        dataset.source, path, dataset, task.name, target_columns=dataset.targets, as_files=as_files, reading=reading
    )
    chosen = choose_parts(dataset, arrays, without_labels=without_labels)
    canvas, warnings = None, list(arrays.warnings)
    if images := _to_be_fitted(arrays, asked=as_files):
        sizes, channels = {(image.height, image.width) for image in images}, {image.channels for image in images}
        canvas, whose = choose_canvas(sizes, channels, dataset.image, given or {}, examples=lambda: examples_of(images))
        warnings.append(canvas_warning(canvas, whose, images))
        files, chosen = chosen, {part: _fitted(split, canvas, dataset.source) for part, split in chosen.items()}
    elif dataset.image is not None:
        on_canvas(chosen["train"].inputs, Canvas(1, 1, 3), source=dataset.source)  # refuses what are no files
    arrays = _named(arrays, dataset)
    splits, targets = task.samples(dataset, arrays, chosen)
    if canvas is not None and takes_windows:
        splits["train"] = replace(splits["train"], whole=WholeImages(files_among(files["train"].inputs), canvas))
    inputs = splits["train"].inputs
    is_eight_bit = is_images(inputs) and inputs.dtype == torch.uint8
    data = Data(
        task.name,
        splits,
        targets,
        max_value=max_value if is_eight_bit else None,
        clip_seconds=dataset.clip_seconds,
        row_tokens=dataset.row_tokens,
        chat_template=dataset.chat_template,
        canvas=canvas,
        warnings=tuple(warnings),
        rows_by_split={name: len(split.inputs) for name, split in arrays.splits.items()},
        read=read,
    )
    return _with_transfer(data, dataset, transfer, task=task, reading=reading)


def _to_be_fitted(arrays: DataArrays, *, asked: bool) -> list[EncodedImage]:
    """Images of several sizes, or ``asked`` to be fitted, that are files: of those on disk one of each size."""
    images = files_of(arrays)
    are_several = len({(image.height, image.width) for image in images}) > 1
    return images if asked or are_several else []


def _fitted(split: SplitArrays, canvas: Canvas, source: str) -> SplitArrays:
    if isinstance(split.inputs, StoredInputs) and split.inputs.kind == "image":
        check_channels({image.channels for image in split.inputs.of_each_size}, canvas, source=source)
        return replace(split, inputs=replace(split.inputs, canvas=canvas))
    return replace(split, inputs=on_canvas(split.inputs, canvas, source=source))


def _load(
    source: str,
    path: Path | None,
    dataset: DatasetSpec,
    task: TaskName,
    *,
    target_columns: Sequence[str],
    as_files: bool,
    reading: Reading | None,
) -> tuple[DataArrays, float]:
    """A source's arrays, and the greatest value possible of its 8-bit pixels. ``as_files``: images stay files."""
    kind, name = split_source(source)
    if kind == "builtin":
        if name not in BUILTIN_LOADERS:
            raise UnusableData(f"there is no builtin dataset {name!r}; there is {', '.join(BUILTIN_LOADERS)}")
        return BUILTIN_LOADERS[name](), float(MAX_PIXEL)
    if path is None:
        raise UnusableData(f"{source} has no local file")
    arrays = _load_file(
        path, source, dataset, task, target_columns=target_columns, as_files=as_files, leaves_inputs=reading is not None
    )
    if reading is None:
        return arrays, 255.0
    stored = stored_splits(path, dataset.inputs, reading, as_words=TASKS[task].reads_words)
    return replace(arrays, splits={name: replace(split, inputs=stored[name]) for name, split in arrays.splits.items()}), 255.0


def _named(arrays: DataArrays, dataset: DatasetSpec) -> DataArrays:
    """The arrays with the spec's names of classes. Raises UnusableData if they do not fit."""
    for name, names in dataset.class_names.items():
        if arrays.classes.get(name) != [] and (why := why_not_named(arrays.classes.get(name), names)):
            raise UnusableData(f"dataset.class_names of {name!r}: {why}")
    named: dict[str, list[str] | None] = {
        name: list(names) for name, names in dataset.class_names.items() if arrays.classes[name]
    }
    return replace(arrays, classes=arrays.classes | named)


def _with_transfer(data: Data, dataset: DatasetSpec, path: Path | None, *, task: TaskSamples, reading: Reading | None) -> Data:
    """Appends the transfer rows, if the spec has any, to the training split, without labels."""
    if dataset.transfer is None or dataset.transfer_fraction is None:
        return data
    as_files = data.canvas is not None
    arrays, theirs = _load(dataset.transfer, path, dataset, data.task, target_columns=(), as_files=as_files, reading=reading)
    name = transfer_split(dataset, list(arrays.splits))
    if name is None:
        there = ", ".join(map(repr, arrays.splits))
        raise UnusableData(f"{dataset.transfer} has no split 'train' to be the transfer rows; it has {there}")
    train, warnings = data.splits["train"], list(data.warnings)
    if data.canvas is None and _to_be_fitted(replace(arrays, splits={name: arrays.splits[name]}), asked=False):
        raise UnusableData(f"{dataset.transfer} has images of several sizes, the dataset of one: name it as dataset.image.size")
    fitted = arrays.splits[name] if data.canvas is None else _fitted(arrays.splits[name], data.canvas, dataset.transfer)
    inputs = stored_inputs(fitted.inputs)
    if is_images(inputs) and is_images(train.inputs):
        for what, one, other in (
            ("images of shape", tuple(inputs.shape[1:]), tuple(train.inputs.shape[1:])),
            ("pixels of type", inputs.dtype, train.inputs.dtype),
        ):
            if one != other:
                raise UnusableData(f"{dataset.transfer} has {what} {one}, the dataset {other}: store both in the same form")
        warnings += _range_warnings(data, inputs, dataset.transfer, max_value=None if data.max_value is None else theirs)
    whole = _joined(train.inputs, inputs)
    labels = task.append_unlabelled(train.labels, inputs)
    rows = TransferRows(len(inputs), dataset.transfer_fraction, lead=not task.learns_without_teacher(train.labels))
    ours = train.places or (RowPlaces("train", np.arange(len(train))),)  # a builtin dataset is of no file
    added = places_of(arrays.splits[name]) or (RowPlaces(name, np.arange(len(inputs))),)
    places = (*ours, *(replace(each, source=dataset.transfer) for each in added))
    warnings += _transfer_warnings(dataset.transfer, arrays, used=name)
    # A transfer row counts as a row of the dataset does on average.
    weights = None if train.weights is None else torch.cat([train.weights, torch.ones(len(inputs))])
    images = (
        None
        if train.whole is None
        else WholeImages(_joined(train.whole.images, files_among(arrays.splits[name].inputs)), train.whole.canvas)
    )
    with_rows = replace(train, inputs=whole, labels=labels, weights=weights, whole=images, transfer=rows, places=places)
    return replace(data, splits=data.splits | {"train": with_rows}, warnings=tuple(warnings))


def _joined(ours: RawInputs, others: RawInputs) -> RawInputs:
    if isinstance(ours, StoredInputs):
        return ours.followed_by(others)
    return torch.cat([ours, others]) if isinstance(ours, Tensor) else [*ours, *others]


def _transfer_warnings(source: str, arrays: DataArrays, *, used: str) -> Iterator[WarningMessage]:
    """What of the transfer rows' file takes no part, with its own warnings."""
    if unused := sorted(arrays.splits.keys() - {used}):
        rows = sum(len(arrays.splits[name].inputs) for name in unused)
        message = (
            f"split {listed(unused)} of dataset.transfer, {source} ({rows:,} rows), takes no part: the transfer rows are those "
            f"of {used!r}"
        )
        yield WarningMessage(code="split_unused", message=message)
    for warning in arrays.warnings:
        if warning.code not in _OF_LABELS:
            yield WarningMessage(code=warning.code, message=f"dataset.transfer, {source}: {warning.message}")


def _range_warnings(data: Data, images: RawInputs, source: str, *, max_value: float | None) -> list[WarningMessage]:
    """What the white of images to learn from without labels is held to be. Raises UnusableData if it is not the dataset's."""
    ours, theirs = data.pixel_range, pixel_range({"the transfer rows": images}, max_value=max_value)
    if not theirs.is_as(ours):
        raise UnusableData(
            f"{source} has pixels from {theirs} and up to {theirs.brightest:g}, the dataset from {ours} and up to "
            f"{ours.brightest:g}: store both as floats from 0 (black) to 1 (white)"
        )
    if not theirs.counts_as(ours) and not ours.counts_as(theirs):
        return []
    message = (
        f"No pixel of the dataset or of {source} is above {min(ours.high, theirs.high):g}, which is white for one of them: both "
        "are read as if it were for both. If it is not, store both as floats from 0 (black) to 1 (white)."
    )
    return [WarningMessage(code="white_by_evidence", message=message)]


def _load_file(
    path: Path,
    source: str,
    dataset: DatasetSpec,
    task: TaskName,
    *,
    target_columns: Sequence[str],
    as_files: bool,
    leaves_inputs: bool,
) -> DataArrays:
    try:
        return read_dataset(
            path,
            filename=source,
            task=task,
            input_column=dataset.inputs,
            target_columns=list(target_columns),
            weight_column=dataset.weight if target_columns else None,
            numbers=dataset.numbers,
            as_files=as_files,
            skip_broken=dataset.skip_broken,
            leaves_inputs=leaves_inputs,
        )
    except InvalidFile as error:
        raise UnusableData(f"{source}: {error.detail}") from error
    except OSError as error:
        raise UnusableData(f"{source} cannot be read: {error}") from error
