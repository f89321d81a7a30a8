"""A dataset file in memory: its inputs and targets by split, filled chunk by chunk."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.formats.chunk import Chunk, RawInputs
from service.formats.media.decoding import decode, decode_images
from service.formats.media.encoded import EncodedImage
from service.formats.media.image_extent import common_channels
from service.formats.places import RowPlaces
from service.formats.targets.number import as_indices
from service.formats.targets.target import Settled, TargetArray, TargetTally
from service.formats.text import AnswerTally
from service.spec.warning_message import WarningMessage


@dataclass(frozen=True)
class SplitArrays:
    """The samples of one split. N samples."""

    inputs: RawInputs
    """N images, texts, waveforms or lists of words."""
    targets: dict[str, TargetArray]
    """By column, each (N,): class indices, -1 if missing; numbers, NaN if missing; answers; or class indices of a row's words."""
    places: RowPlaces | None = None
    """Where the samples stand in their file; None if they come from no file."""


@dataclass(frozen=True)
class DataArrays:
    """A whole dataset file in memory."""

    splits: dict[str, SplitArrays]
    classes: dict[str, list[str] | None]
    """The class names by target: none for one that no row has a value of; None for numbers and texts."""
    label_kinds: dict[str, Literal["labels", "probabilities"]] = field(default_factory=dict)
    """What the labels are, by target, of those that are no plain classes: arrays with a column a class."""
    warnings: list[WarningMessage] = field(default_factory=list)
    """What of the file is left out, and what was read otherwise than one might think; splits and labels are the reader's."""


@dataclass
class SplitBuilder:
    """The arrays of one split while it is being read."""

    inputs: NDArray[np.generic] | list[object]
    """Files of images as such, until the sizes of all are known."""
    targets: dict[str, TargetArray]
    leaves_inputs: bool = False
    """Whether inputs, and answers, stay in shards."""
    num_filled: int = field(default=0)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    lines: list[NDArray[np.int64]] = field(default_factory=list)

    @classmethod
    def of(cls, chunk: Chunk, *, num_rows: int, tallies: dict[str, TargetTally], leaves_inputs: bool = False) -> "SplitBuilder":
        first = chunk.inputs
        room = np.empty((num_rows, *first.shape[1:]), dtype=first.dtype) if isinstance(first, np.ndarray) else None
        targets = {column: tally.empty(num_rows) for column, tally in tallies.items()}
        return cls(inputs=[] if room is None else room, targets=targets, leaves_inputs=leaves_inputs)

    def add(self, chunk: Chunk, tallies: dict[str, TargetTally]) -> None:
        start, stop = self.num_filled, self.num_filled + len(chunk.rows)
        if self.leaves_inputs:
            pass
        elif isinstance(self.inputs, np.ndarray):
            self.inputs[start:stop] = cast(NDArray[np.generic], chunk.inputs)
        elif len(chunk.inputs) and isinstance(chunk.inputs[0], EncodedImage):
            self.inputs.extend(chunk.inputs)
        else:
            self.inputs.extend(decode(chunk.inputs))
        for column, tally in tallies.items():
            values = tally.add(chunk)
            if not (self.leaves_inputs and isinstance(tally, AnswerTally)):
                cast(Any, self.targets[column])[start:stop] = values
        self.rows.append(chunk.rows)
        self.lines += [] if chunk.lines is None else [chunk.lines]
        self.num_filled = stop

    def finish(self, name: str, settled: dict[str, Settled], *, channels: int | None) -> SplitArrays:
        """``channels`` are those that the files of images are to be decoded with; None if they are to stay files."""
        if channels is not None:
            self.inputs = decode_images(cast(Sequence[EncodedImage], self.inputs), channels)
        self.targets = {column: values[: self.num_filled] for column, values in self.targets.items()}
        for column, found in settled.items():
            if found.array is not None:
                self.targets[column] = found.array(self.targets[column])
            elif isinstance(found_words := self.targets[column], list):
                if found.index_of_code is not None:
                    rows = cast(list[NDArray[np.int64]], found_words)
                    self.targets[column] = [found.index_of_code[codes] for codes in rows]
            elif found.classes == []:
                self.targets[column] = np.full(self.num_filled, -1, dtype=np.int64)
            elif found.classes is not None and found.index_of_code is None:
                self.targets[column] = as_indices(cast(NDArray[np.float64], self.targets[column]))
            elif found.index_of_code is not None:
                codes = cast(NDArray[np.int64], self.targets[column])
                codes[:] = found.index_of_code[codes]
        places = RowPlaces(name, np.concatenate(self.rows), np.concatenate(self.lines) if self.lines else None)
        return SplitArrays(inputs=cast(RawInputs, self.inputs), targets=self.targets, places=places)


def channels_of_one_size(splits: Collection["SplitBuilder"]) -> int | None:
    """The channels in which files of images are decoded; None if they are of several sizes, or no images."""
    images = [image for split in splits for image in split.inputs if isinstance(image, EncodedImage)]
    if len({(image.height, image.width) for image in images}) != 1:
        return None
    return common_channels({image.channels for image in images})


def label_kind(found: Settled) -> Literal["labels", "probabilities"] | None:
    return found.kind if found.kind == "labels" or found.kind == "probabilities" else None
