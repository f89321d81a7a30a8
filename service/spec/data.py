"""The dataset part of a spec, and the description of a dataset: splits, columns, classes."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from service.spec.canvas import ImageFit
from service.spec.dataset_facts import DatasetFacts
from service.spec.source import DatasetSource, split_source
from service.spec.strict import StrictModel
from service.spec.tasks import MAX_TARGETS, TASKS, TaskName
from service.spec.warning_message import WarningMessage

DEFAULT_TRANSFER_FRACTION = 0.5


ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
ColumnPair = Annotated[list[ColumnName], Field(min_length=2, max_length=2)]
NameOfClass = Annotated[str, Field(min_length=1, max_length=1000)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Splits(StrictModel):
    """Names the dataset's own splits."""

    train: str = "train"
    """The split to train on."""
    validation: str | None = None
    """The split that chooses the best weights; null holds ``validation_fraction`` of the training split out for it."""
    test: str | None = None
    """The split that the report's figures come from; null holds ``test_fraction`` of the training split out for it."""


def _without_default(schema: dict[str, Any]) -> None:
    """Removes the default from the schema of a field: it depends on the task, which no schema can express."""
    schema.pop("default", None)


class DatasetSpec(StrictModel):
    """Which samples a job trains on, and which columns of them."""

    source: DatasetSource
    """``builtin:NAME``, ``dataset:ID`` of an uploaded dataset, ``file:PATH`` under a root that the operator allows,
    ``hub:REPO[@REVISION][:CONFIG]``, a dataset of the Hugging Face Hub, or ``s3://BUCKET/PATH``, a file or a folder of Parquet or
    JSONL files in a bucket that the operator allows."""
    input: Annotated[ColumnName | ColumnPair, Field(json_schema_extra=_without_default)] = "image"
    """The column that the networks read; by default ``image``, ``text``, ``audio`` or ``tokens``, by the task. For a
    ``text-classification`` it may be a list of two, whose texts are read as a pair: ``[premise, hypothesis]``."""
    targets: Annotated[list[ColumnName], Field(max_length=MAX_TARGETS, json_schema_extra=_without_default)] = ["label"]
    """The columns to predict: of labels, or of numbers; several make it a multi-task job. By default ``[label]``, for
    ``token-classification`` ``[tags]``, with ``spans`` beside an input of texts in their place, for ``sentence-embedding`` and
    ``causal-lm`` none. A ``causal-lm`` may have one, of text: the answer to the input."""
    numbers: Annotated[list[ColumnName], Field(max_length=MAX_TARGETS)] = []
    """Those of the targets that are numbers though all of their floats are whole, 0 to 31, and repeat, as class indices do. The
    stored spec names all that are numbers."""
    class_names: dict[ColumnName, Annotated[list[NameOfClass], Field(min_length=2, max_length=10_000)]] = {}
    """By target, the names of classes that the file has by number alone, in the order of their indices: of integers, and of lists
    of indices, of 0 and 1, or of probabilities."""
    weight: ColumnName | None = None
    """The column of the rows' weights, numbers of 0 and more: a row of weight 2 counts as two in every loss that trains, its
    label's and its teacher's. They are divided by their mean over the training split. Figures are not weighted."""
    splits: Splits | None = None
    """The dataset's splits by their own names; by default those called train, validation and test."""
    transfer: DatasetSource | None = None
    """Further inputs without labels, which the student learns from its teacher alone: the training split of another dataset, with
    the same input column."""
    transfer_fraction: Fraction | None = None
    """Share of each batch that those are; by default 0.5 with ``transfer``. An epoch is one pass over the training split, or over
    the transfer rows where the training split has no labels."""
    image: ImageFit | None = None
    """Of files of images: the one size that all are fitted to, and how. Needed where they are of several sizes, unless a given
    network's image processor says the size; null leaves images of one size as they are."""
    skip_broken: bool = False
    """Whether rows whose file of an image or of sound cannot be read are left out, and told with the first of their places,
    rather than refused. Of ``file:``, ``hub:`` and ``s3:`` data; of an upload it is said as it is uploaded."""
    validation_fraction: Fraction = 0.1
    """Share of the training split held out, stratified by class, when the dataset has no validation split."""
    test_fraction: Fraction = 0.2
    """Share of the training split held out, stratified by class, when the dataset has no test split."""
    clip_seconds: Annotated[float, Field(ge=0.05, le=1800)] = 10.0
    """Of sound: most seconds of a clip that are read. Clips are as long as the training split's longest, and at most this."""
    packing: Literal["packed", "padded", "isolated"] | None = None
    """Of texts for a ``causal-lm``: ``packed``, one after another, each with its end, cut into rows without padding; ``padded``,
    one a row; ``isolated``, several whole ones in a row, none of which attends to another, so that what is learned is as if they
    were padded. By default ``padded`` where there are answers or chats and for ``uld``, else ``packed``."""
    overlong: Literal["cut", "refuse"] = "cut"
    """What becomes of a text of a ``causal-lm`` that is longer than a row, where texts are not ``packed``: it is cut, or the job
    is refused with its row. A chat loses its oldest turns first, and never the system's."""
    chat_template: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    """The template (Jinja) by which chats are written, in the place of the one that the tokenizer comes with; the student keeps
    it."""
    row_tokens: Annotated[int, Field(ge=4, le=32_768)] | None = None
    """Most tokens of a row for a ``causal-lm``; by default the tokenizer's own ``max_length``, of one that comes with a teacher
    1,024 at most."""
    read: Literal["auto", "memory", "shards"] = "auto"
    """Whether the samples are read into memory at once, or from shards on the host's disk as they are needed; ``auto``: into
    memory as far as they fit into a quarter of what is free there, 4 GiB at most. The student is the same either way. What was
    done, and why, is in the report, ``data.read``."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the held-out shares: the same seed gives the same splits for every job on this dataset."""

    @field_validator("class_names")
    @classmethod
    def _names_are_different(cls, class_names: dict[str, list[str]]) -> dict[str, list[str]]:
        for column, names in class_names.items():
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"each class has a name of its own; {twice[0]!r} of {column!r} stands there several times")
        return class_names

    @field_validator("targets")
    @classmethod
    def _targets_are_different(cls, targets: list[str]) -> list[str]:
        if twice := sorted({name for name in targets if targets.count(name) > 1}):
            raise ValueError(f"each target is named once; {', '.join(map(repr, twice))} is named several times")
        return targets

    @field_validator("input")
    @classmethod
    def _inputs_are_different(cls, named: str | list[str]) -> str | list[str]:
        if not isinstance(named, str) and len(set(named)) < len(named):
            raise ValueError(f"the two texts of a pair stand in two columns; {named[0]!r} is named twice")
        return named

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input column; two where a row is a pair of texts."""
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)

    @model_validator(mode="after")
    def _fraction_is_of_transfer(self) -> Self:
        if self.transfer is None and self.transfer_fraction is not None:
            raise ValueError("transfer_fraction is the share of transfer rows in each batch: give transfer, or leave it out")
        if self.transfer is not None and self.transfer == self.source:
            raise ValueError("transfer is the very source of the dataset, whose training split is learnt anyway: name another")
        if self.transfer is not None and self.transfer_fraction is None:
            object.__setattr__(self, "transfer_fraction", DEFAULT_TRANSFER_FRACTION)
        return self

    @model_validator(mode="after")
    def _skips_what_is_read_here(self) -> Self:
        sources = [self.source] if self.transfer is None else [self.source, self.transfer]
        if self.skip_broken and all(split_source(each).kind in ("builtin", "dataset") for each in sources):
            raise ValueError("skip_broken is said as a dataset is uploaded, with its field skip_broken: leave it out here")
        return self

    @model_validator(mode="after")
    def _fractions_leave_something(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must stay below 1, so that something is left to train on")
        return self


def named_targets(dataset: DatasetSpec, task: TaskName) -> list[str] | None:
    """The targets that a file must have; None where they are the task's own, which a file without labels lacks."""
    return None if tuple(dataset.targets) == TASKS[task].targets else list(dataset.targets)


def as_declared(dataset: "DatasetInfo", numbers: Collection[str]) -> "DatasetInfo":
    """The description with ``numbers`` as numbers, where their values are floats that were read as class indices."""
    found = {
        name: column.model_copy(update={"kind": "number", "num_classes": None, "classes": None, "class_counts": None})
        for name, column in dataset.columns.items()
        if name in numbers and column.kind == "label" and column.classes and re.search("float|double", column.dtype)
    }
    first = next((name for name, column in dataset.columns.items() if column.kind in ("label", "number")), None)
    changed: dict[str, Any] = {"columns": dataset.columns | found} | (
        {"classes": [], "class_counts": {}} if first in found else {}
    )
    warnings = [each for each in dataset.warnings if not (each.code == "labels_from_floats" and _is_of(each, found))]
    return dataset.model_copy(update=changed | {"warnings": warnings})


def why_not_named(classes: Sequence[str] | None, names: Sequence[str]) -> str | None:
    """Why classes cannot be called so, which a file has; None if they can: as many, and called by their numbers so far."""
    if classes is None:
        return "it holds no classes"
    if list(classes) != [str(index) for index in range(len(classes))]:
        return f"its classes have names: {', '.join(map(repr, classes[:10]))}"
    return None if len(classes) == len(names) else f"it has {len(classes)} classes, and these are {len(names)} names"


def with_class_names(dataset: "DatasetInfo", class_names: Mapping[str, Sequence[str]]) -> "DatasetInfo":
    """The description with these names in place of numbers, where they fit."""
    found = {
        name: dataset.columns[name].model_copy(update={"classes": list(names)})
        for name, names in class_names.items()
        if name in dataset.columns and why_not_named(dataset.columns[name].classes, names) is None
    }
    return dataset.model_copy(update={"columns": dataset.columns | found})


def reading_warnings(dataset: "DatasetInfo", targets: Collection[str]) -> list[WarningMessage]:
    """How the values of the ``targets`` were read, where they may have been meant otherwise."""
    return [each for each in dataset.warnings if each.code in _OF_READING and _is_of(each, targets)]


_OF_READING = {
    "labels_from_floats",
    "labels_from_one_hot",
    "minus_one_is_missing",
    "numbers_in_classification",
    "numbers_in_strings",
    "similar_class_names",
    "class_named_missing",
    "many_classes",
}


def _is_of(warning: WarningMessage, columns: Collection[str]) -> bool:
    return any(warning.message.startswith(f"column {name!r} ") for name in columns)


class ImageSizes(StrictModel):
    """The sizes of images that have several."""

    least: list[int]
    """The least height and the least width."""
    greatest: list[int]
    """The greatest height and the greatest width."""
    most_common: list[list[int]]
    """The ten most common sizes: height, width, and how many images have it."""
    channels: int
    """With which they are read: 1 for grey, 3 for RGB, 4 with transparency."""


class Column(StrictModel):
    """One column of a dataset."""

    kind: Literal[
        "image",
        "text",
        "audio",
        "tokens",
        "messages",
        "label",
        "number",
        "labels",
        "probabilities",
        "tags",
        "spans",
        "weight",
        "other",
    ]
    """What it can be used as: an input (``image``, ``text``, ``audio``; ``tokens``, words in a list; ``messages``, the turns of a
    chat), a target (``label``, ``number``; ``labels``, any of the classes, or ``probabilities`` of them, in lists; ``tags`` of
    the words, ``spans`` of a text; ``text`` and ``messages`` are the answer for a ``causal-lm``), the ``weight`` of the rows, or
    none of these."""
    dtype: str
    """The type of its values."""
    shape: list[int] | None = None
    """Of images of one size: height, width, channels."""
    sizes: ImageSizes | None = None
    """Of images of several sizes."""
    rates: list[int] | None = None
    """Of audio: the numbers of samples a second that occur, the twenty lowest at most."""
    longest_seconds: float | None = None
    """Of audio: how long the longest clip is."""
    num_classes: int | None = None
    """Of a label that is a target, and of tags."""
    classes: list[str] | None = None
    """Of a label that is a target, of lists of labels, and of tags: the class names, in the order of their indices."""
    class_counts: dict[str, list[int]] | None = None
    """Of a label that is a target: samples of each class, by split; of probabilities their sums; of tags: words of each."""
    num_missing: int = 0
    """Of a target: rows without a value."""
    missing_counts: dict[str, int] = {}
    """Of a target: the same by split, of the splits that have such rows."""


WITH_CLASSES = ("label", "labels", "probabilities", "tags", "spans")
"""Kinds of columns whose values are classes."""


class DatasetInfo(StrictModel):
    """Description of a dataset, stored so that its samples need not be read again."""

    task: TaskName
    """What it is to train."""
    splits: dict[str, int]
    """Rows by split."""
    columns: dict[str, Column]
    """What each row holds, by name."""
    classes: list[str]
    """The class names of the first target, in the order of their indices; none where it is no label."""
    class_counts: dict[str, list[int]] = {}
    """Samples of each class of the first target, by split."""
    warnings: list[WarningMessage] = []
    """What of the file takes no part by default, and what was read otherwise than one might think."""
    facts: DatasetFacts | None = None
    """What was counted of its rows; null for one that is built in, or that was uploaded before this was counted."""
