"""The dataset part of a spec, and what is known of a dataset before anything is trained on it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.spec.source import DatasetSource
from service.spec.strict import StrictModel

Task = Literal["image-classification"]
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Splits(StrictModel):
    """Names the dataset's own splits."""

    train: str = "train"
    """The split to train on."""
    validation: str | None = None
    """The split that chooses the best weights; null holds ``validation_fraction`` of the training split out for it."""
    test: str | None = None
    """The split that the report's figures come from; null holds ``test_fraction`` of the training split out for it."""


class DatasetSpec(StrictModel):
    """Which samples a job trains on, and which columns of them."""

    source: DatasetSource
    """``builtin:NAME``, ``dataset:ID`` of an uploaded dataset, or ``file:PATH`` under a root that the operator allows."""
    input: ColumnName = "image"
    """The column that the networks read."""
    targets: Annotated[list[ColumnName], Field(min_length=1, max_length=1)] = ["label"]
    """The columns to predict: one for a classification."""
    splits: Splits | None = None
    """The dataset's splits by their own names; by default those called train, validation and test."""
    validation_fraction: Fraction = 0.1
    """Share of the training split held out, stratified by class, when the dataset has no validation split."""
    test_fraction: Fraction = 0.2
    """Share of the training split held out, stratified by class, when the dataset has no test split."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the held-out shares: the same seed gives the same splits for every job on this dataset."""

    @model_validator(mode="after")
    def _fractions_leave_something(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must stay below 1, so that something is left to train on")
        return self


class Column(StrictModel):
    """One column of a dataset."""

    kind: Literal["image", "label", "other"]
    """What it can be used as."""
    dtype: str
    """The type of its values."""
    shape: list[int] | None = None
    """Of an image: height, width, channels."""
    num_classes: int | None = None
    """Of a label."""


class DatasetInfo(StrictModel):
    """What is known of a dataset without reading its samples again."""

    task: Task
    """What it is to train."""
    splits: dict[str, int]
    """Rows by split."""
    columns: dict[str, Column]
    """What each row holds, by name."""
    classes: list[str]
    """The class names, in the order of their indices."""
    class_counts: dict[str, list[int]] = {}
    """Samples of each class, by split."""
