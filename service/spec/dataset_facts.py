"""What was counted of a dataset while it was read: how long its inputs are, and which rows are there several times."""

from typing import Literal

from service.spec.strict import StrictModel


class Lengths(StrictModel):
    """How long the inputs of a column are, as a histogram whose bins are the same for every dataset."""

    unit: Literal["characters", "words", "seconds", "pixels"]
    """Characters of texts, or of what is said in chats; words of lists; seconds of sound; pixels of images' longer sides."""
    edges: list[float]
    """Where each bin begins, which ends before the next begins; the last has no end."""
    counts: dict[str, list[int]]
    """Rows in each bin, by split."""
    least: float
    """Of all splits."""
    mean: float
    """Of all splits."""
    most: float
    """Of all splits."""


class RowPlace(StrictModel):
    """Where a row stands in its file."""

    row: int
    """Its number in the file, from 0."""
    line: int | None
    """In a text file, the line on which it begins, from 1."""


class SharedRow(StrictModel):
    """Two rows of two splits with the same input."""

    here: RowPlace
    """In the split."""
    there: RowPlace
    """In the other one."""


class SharedRows(StrictModel):
    """Rows of a split whose inputs another split has too."""

    split: str
    """The split; the one held out, where the other is to train on."""
    also_in: str
    """The other split."""
    rows: int
    """How many rows of ``split`` they are."""
    first: list[SharedRow]
    """The first three inputs, in the order of ``split``."""


class DatasetFacts(StrictModel):
    """What was counted of a dataset. Inputs are the same where pixels, samples or texts are, and answers where there are any."""

    lengths: dict[str, Lengths]
    """By input column."""
    decoded_bytes: dict[str, int]
    """About how much memory the inputs take, decoded, by split."""
    repeated_rows: dict[str, int]
    """Rows whose input an earlier row of the same split has, by split."""
    shared_rows: list[SharedRows]
    """Pairs of splits that have inputs in common."""
