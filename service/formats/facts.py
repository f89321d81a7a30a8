"""Counts what a dataset holds while it is read: how long its inputs are, how large in memory, which rows have the same."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from service.formats.chat import Chat
from service.formats.chunk import Chunk, ChunkInputs
from service.formats.media.encoded import EncodedAudio, EncodedImage
from service.formats.pair import TextPair
from service.formats.repeated_rows import RepeatedRows
from service.spec.dataset_facts import DatasetFacts, Lengths, RowPlace, SharedRows
from service.spec.split_names import split_roles
from service.spec.warning_message import WarningMessage

Unit = Literal["characters", "words", "seconds", "pixels"]
EDGES: dict[Unit, tuple[float, ...]] = {
    "characters": (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536),
    "words": (0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    "seconds": (0, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 300, 1800),
    "pixels": (0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096),
}


class FactsTally:
    """The running counts of a dataset with those input columns."""

    def __init__(self, inputs: Sequence[str], *, folder: Path | None) -> None:
        self._lengths = {column: _LengthTally() for column in inputs}
        self._decoded_bytes: Counter[str] = Counter()
        self._repeated = RepeatedRows(folder)

    def add(self, chunk: Chunk, digests: pa.Array, *, num_bytes: int) -> None:
        """Adds rows as they stand in the file, with their digests (N,) and their size decoded."""
        for tally, inputs in zip(self._lengths.values(), _columns(chunk.inputs), strict=True):
            tally.add(chunk.split, inputs)
        self._decoded_bytes[chunk.split] += num_bytes
        self._repeated.add(chunk, digests)

    def close(self) -> None:
        """Ends the temporary files."""
        self._repeated.close()

    def settle(self) -> DatasetFacts:
        """The counts, once all rows were added."""
        repeated, shared = self._repeated.find()
        return DatasetFacts(
            lengths={column: tally.settle() for column, tally in self._lengths.items()},
            decoded_bytes=dict(self._decoded_bytes),
            repeated_rows=repeated,
            shared_rows=shared,
        )


def leak_warnings(facts: DatasetFacts, splits: dict[str, int]) -> list[WarningMessage]:
    """The rows by which networks are chosen or scored, as the splits are called, that are in the training split too."""
    roles = split_roles(splits)
    return [
        WarningMessage(
            code="rows_in_train",
            message=f"{shared.rows:,} of {splits[shared.split]:,} rows of split {shared.split!r} are in split {shared.also_in!r} "
            f"too, input for input ({_first_of(shared)}): their score would show what was learnt by heart; take them out of one "
            "of the two",
        )
        for shared in facts.shared_rows
        if shared.also_in == roles.train and shared.split in (roles.validation, roles.test)
    ]


class _LengthTally:
    def __init__(self) -> None:
        self._unit: Unit = "characters"
        self._counts: dict[str, Any] = {}
        self._num_rows: Counter[int] = Counter()
        self._totals: Counter[int] = Counter()
        self._least, self._most = float("inf"), 0.0

    def add(self, split: str, inputs: ChunkInputs) -> None:
        self._unit, lengths, rates = _lengths(inputs)
        edges = EDGES[self._unit]
        values = lengths / rates
        bins = np.searchsorted(edges, values, side="right") - 1
        self._counts[split] = self._counts.get(split, 0) + np.bincount(bins, minlength=len(edges))
        # Whole numbers, so that the order of the rows changes no digit of the mean.
        for rate in np.unique(rates).tolist():
            self._totals[rate] += int(lengths[rates == rate].sum())
            self._num_rows[rate] += int((rates == rate).sum())
        self._least, self._most = min(self._least, float(values.min())), max(self._most, float(values.max()))

    def settle(self) -> Lengths:
        total = sum(self._totals[rate] / rate for rate in sorted(self._totals))
        return Lengths(
            unit=self._unit,
            edges=list(EDGES[self._unit]),
            counts={split: counts.tolist() for split, counts in self._counts.items()},
            least=self._least,
            mean=total / self._num_rows.total(),
            most=self._most,
        )


def _columns(inputs: ChunkInputs) -> Iterator[ChunkInputs]:
    """The inputs of each column: of pairs the first and the second texts."""
    if not isinstance(inputs[0], TextPair):
        yield inputs
        return
    pairs = cast(Sequence[TextPair], inputs)
    yield from ([pair[index] for pair in pairs] for index in range(2))


def _lengths(inputs: ChunkInputs) -> tuple[Unit, Any, Any]:
    """The unit of the lengths of some inputs, the lengths (N,), and the divisors (N,) by which they become that unit."""
    if isinstance(inputs, np.ndarray):
        return "pixels", np.full(len(inputs), max(inputs.shape[2:])), np.ones(len(inputs), dtype=np.int64)
    unit: Unit = "characters"
    match inputs[0]:
        case EncodedImage():
            unit = "pixels"
        case EncodedAudio():
            unit = "seconds"
        case list():
            unit = "words"
    sizes = np.array([_size(each) for each in inputs], dtype=np.int64)
    return unit, sizes[:, 0], sizes[:, 1]


def _size(sample: object) -> tuple[int, int]:
    match sample:
        case EncodedImage():
            return max(sample.height, sample.width), 1
        case EncodedAudio():
            return sample.num_samples, sample.rate
        case Chat():
            return sum(len(message.get("content") or "") for message in sample.messages), 1
        case str() | list():
            return len(sample), 1
        case _:
            raise TypeError(f"{type(sample).__name__} is no input")


def _first_of(shared: SharedRows) -> str:
    pairs = "; ".join(f"{_told(pair.here)} is {_told(pair.there)}" for pair in shared.first)
    return f"{'the first: ' if shared.rows > len(shared.first) else ''}{pairs}"


def _told(place: RowPlace) -> str:
    return f"row {place.row}{'' if place.line is None else f' (line {place.line})'}"
