"""A preview of a dataset file: its first rows, for people."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.formats.chunk import Chunk, DataTable, Waveform
from service.formats.media.decoding import decode
from service.formats.pair import TextPair
from service.formats.readers.opening import MAX_UNPACKED_BYTES, open_table
from service.formats.selection import select_columns
from service.formats.table import read_chunks
from service.spec.data import Column
from service.spec.tasks import TaskName

MAX_SHOWN_CHARACTERS = 500
MAX_SHOWN_WORDS = 100
ShownTarget = str | float | list[str | None] | list[float] | None


@dataclass(frozen=True)
class Sample:
    """One row of a preview. Fields that do not apply to its kind of input are null."""

    split: str
    """The split of the row."""
    row: int
    """The number of the row in the file, from 0."""
    targets: dict[str, ShownTarget] = field(default_factory=dict)
    """By column: the name of the class, the number, the start of the answer, the tags of the shown words, or a list of
    classes or probabilities; null if missing."""
    label: str | None = None
    """The class name of the first target; null if that is not a label."""
    weight: float | None = None
    """The row's weight; null where rows have none."""
    text: str | None = None
    """The text, or its first 500 characters."""
    texts: list[str] | None = None
    """Of a pair of texts, the same of each."""
    tokens: list[str] | None = None
    """The words, as given or as made of the text, or the first 100 of them."""
    shape: tuple[int, int, int] | None = None
    """For an image: (height, width, channels)."""
    seconds: float | None = None
    """For audio: its duration."""
    rate: int | None = None
    """For audio: its samples per second."""
    minimum: float | None = None
    """The minimum of the image's or the audio's values."""
    mean: float | None = None
    """The mean of the values."""
    maximum: float | None = None
    """The maximum of the values."""


def first_samples(
    path: Path,
    *,
    filename: str,
    task: TaskName,
    input_column: str | Sequence[str] | None = None,
    target_columns: Sequence[str] | None = None,
    weight_column: str | None = None,
    num_rows: int,
    columns: Mapping[str, Column] | None = None,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> list[Sample]:
    """Reads the first rows of a file that ``inspect_dataset`` accepted.

    ``columns`` are those that it described, whose class names take the place of numbers that are class indices.
    """
    selection = select_columns(
        task,
        input_column=input_column,
        target_columns=target_columns,
        weight_column=weight_column,
        max_unpacked_bytes=max_unpacked_bytes,
    )
    samples: list[Sample] = []
    with open_table(path, filename, selection) as table:
        for chunk in read_chunks(table, selection):
            for index in range(len(chunk.rows)):
                if len(samples) == num_rows:
                    return samples
                samples.append(_sample(chunk, index, table, columns or {}, weight_column))
    return samples


def _sample(chunk: Chunk, index: int, table: DataTable, columns: Mapping[str, Column], weight_column: str | None) -> Sample:
    targets = {
        column: _shown_target(chunk, index, column, table, columns[column].classes if column in columns else None)
        for column in table.targets
        if column != weight_column
    }
    label = next(iter(targets.values()), None)
    is_label = isinstance(label, str) and "text" not in table.targets.values()
    sample = Sample(split=chunk.split, row=int(chunk.rows[index]), targets=targets, label=str(label) if is_label else None)
    if weight_column is not None:
        sample = replace(sample, weight=float(cast(Any, chunk.targets[weight_column][index])))
    match decode(chunk.inputs[index : index + 1])[0]:
        case str() as text:
            return replace(sample, text=text[:MAX_SHOWN_CHARACTERS])
        case TextPair() as pair:
            return replace(sample, texts=[text[:MAX_SHOWN_CHARACTERS] for text in pair])
        case list() as words:
            return replace(sample, tokens=[word[:MAX_SHOWN_CHARACTERS] for word in words[:MAX_SHOWN_WORDS]])
        case Waveform() as sound:
            seconds = len(sound.samples) / sound.rate
            return replace(_with_spread(sample, sound.samples), seconds=seconds, rate=sound.rate)
        case decoded:
            image = cast(NDArray[Any], decoded)
            channels, height, width = image.shape
            return replace(_with_spread(sample, image), shape=(height, width, channels))


def _shown_target(chunk: Chunk, index: int, column: str, table: DataTable, classes: Sequence[str] | None) -> ShownTarget:
    value: Any = chunk.targets[column][index]
    match table.targets[column]:
        case "number":
            if math.isnan(value) or (classes and value < 0):
                return None
            return classes[int(value)] if classes else float(value)
        case "tags" | "spans":
            return None if value is None else [tag or None for tag in value[:MAX_SHOWN_WORDS]]
        case "labels":
            return _shown_list(value, classes)
        case "label" if not isinstance(value, str | None):
            names = table.class_names.get(column)
            return None if value < 0 else names[value] if names else str(value)
        case _:
            return None if value is None else str(value)[:MAX_SHOWN_CHARACTERS]


def _shown_list(value: list[Any] | None, classes: Sequence[str] | None) -> list[str | None] | list[float] | None:
    """The names of a row's classes where they are numbered, or its list as it stands."""
    if value is None or not classes or not all(isinstance(each, int) and 0 <= each < len(classes) for each in value):
        return value
    has_places = len(value) == len(classes) and set(value) <= {0, 1}
    chosen: list[int] = np.flatnonzero(value).tolist() if has_places else value
    names: list[str | None] = [classes[at] for at in chosen]
    return names


def _with_spread(sample: Sample, values: NDArray[Any]) -> Sample:
    return replace(sample, minimum=float(values.min()), mean=float(values.mean()), maximum=float(values.max()))
