"""Opens a dataset file with the reader of its format, inspects it, and reads it into arrays."""

import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.archives import DAMAGE, is_damage
from service.errors import InvalidFile
from service.formats.chat import refuse_chats_as_text
from service.formats.chunk import Chunk, ColumnSelection, DataTable, RawInputs, Reader
from service.formats.csv import open_csv
from service.formats.dataset_warnings import column_warnings, reading_warnings, split_warnings, target_warnings
from service.formats.decoding import decode, decode_images
from service.formats.encoded import EncodedImage
from service.formats.facts import FactsTally, leak_warnings
from service.formats.folder import FolderTable
from service.formats.image_extent import common_channels
from service.formats.jsonl import open_jsonl
from service.formats.label import LabelTally
from service.formats.list_label import ListTally
from service.formats.members import is_tar
from service.formats.npz import NpzTable
from service.formats.number import NumberTally, as_indices
from service.formats.other_formats import COMPRESSED, refuse_other_format
from service.formats.parquet import ParquetTable
from service.formats.places import RowPlaces
from service.formats.shard_table import ShardTable
from service.formats.shard_values import decoded_bytes, sample_digests
from service.formats.shard_writer import ShardWriter
from service.formats.tags import TagTally
from service.formats.target import Settled, TargetArray, TargetTally
from service.formats.text import AnswerTally
from service.formats.text_file import compressed_text
from service.formats.weight import WeightTally
from service.formats.words import as_words
from service.spec.data import Column, DatasetInfo
from service.spec.tasks import TASKS, InputColumnKind, InputKind, TaskName
from service.spec.warning_message import WarningMessage

MAX_UNPACKED_BYTES = 256 * 2**30
"""The most bytes that a file may declare for its arrays or decode to: a zip of a few MB can declare petabytes."""

Format = Literal["npz", "Parquet", "JSONL", "CSV", "zip or tar"]
READERS: dict[InputKind, dict[Format, Reader]] = {
    "image": {"npz": NpzTable, "Parquet": ParquetTable, "zip or tar": FolderTable},
    "text": {"Parquet": ParquetTable, "JSONL": open_jsonl, "CSV": open_csv},
    "audio": {"Parquet": ParquetTable, "zip or tar": FolderTable},
}
"""The readers, by kind of input and by format."""
_HOW_TO_WRITE: dict[Format, str] = {
    "npz": "numpy.savez_compressed",
    "Parquet": "pyarrow.parquet.write_table",
    "JSONL": "one JSON object a line",
    "CSV": "a line of column names first",
    "zip or tar": "of class folders",
}
_INPUTS: dict[InputKind, str] = {"image": "images", "text": "texts", "audio": "sound"}


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


def inspect_dataset(
    path: Path,
    *,
    filename: str,
    task: TaskName,
    input_column: str | Sequence[str] | None = None,
    target_columns: Sequence[str] | None = None,
    weight_column: str | None = None,
    numbers: Collection[str] = (),
    skip_broken: bool = False,
    shards: Path | None = None,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> DatasetInfo:
    """Reads a whole file, a few MB at a time, and describes its contents.

    ``filename`` is the name that the user gave it, for messages and for its suffix. Columns default to those of the task; a file
    that lacks the task's default target is one without labels, and one that lacks a named target is refused. ``numbers`` are the
    targets that are numbers also where their floats look like class indices. ``skip_broken`` leaves rows out whose file of an
    image or of sound cannot be read, and tells them. ``shards`` is a folder that the rows are written
    into on the way, as :func:`write_shards` does.

    Raises:
        InvalidFile: it cannot be trained on; the text names the member, split, row or line, and what to change.
    """
    selection = select_columns(
        task,
        input_column=input_column,
        target_columns=target_columns,
        weight_column=weight_column,
        max_unpacked_bytes=max_unpacked_bytes,
        skip_broken=skip_broken,
    )
    with (
        open_table(path, filename, selection) as table,
        closing(FactsTally(selection.inputs, folder=shards and shards.parent)) as facts,
    ):
        tallies = _tallies(table, selection, numbers)
        _read_through(table, selection, tallies, shards=shards, facts=facts)
        counted = facts.settle()
        settled = {column: tally.settle() for column, tally in tallies.items()}
        _refuse_classes(settled, tallies, numbers)
        columns = table.columns()
    told = table.warnings + target_warnings(tallies, settled, table.lacking, columns, task=task)
    told += split_warnings(table.splits) + leak_warnings(counted, table.splits) + column_warnings(columns, selection)
    for column, found in settled.items():
        columns[column] = _described(columns.get(column) or _absent(columns[selection.input_column], selection), found)
    if weight_column is not None:
        columns[weight_column] = Column(kind="weight", dtype=columns[weight_column].dtype)
    first = settled[selection.target_columns[0]] if settled else None
    return DatasetInfo(
        task=task,
        splits=table.splits,
        columns=columns,
        classes=(first and first.classes) or [],
        class_counts=(first and first.counts) or {},
        warnings=told,
        facts=counted,
    )


def write_shards(
    path: Path,
    folder: Path,
    *,
    filename: str,
    task: TaskName,
    input_column: str | Sequence[str] | None = None,
    target_columns: Sequence[str] = (),
    weight_column: str | None = None,
    skip_broken: bool = False,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> None:
    """Writes the rows of a file into a folder of shards, which reads as the file does; see :mod:`service.formats.shard_index`.

    Raises:
        InvalidFile: a row, or the file, cannot be read. What its targets are as a whole is told once they are read.
    """
    selection = select_columns(
        task,
        input_column=input_column,
        target_columns=target_columns,
        weight_column=weight_column,
        max_unpacked_bytes=max_unpacked_bytes,
        skip_broken=skip_broken,
    )
    selection = replace(selection, without_target="miss")
    with open_table(path, filename, selection) as table:
        _read_through(table, selection, _tallies(table, selection, ()), shards=folder, facts=None)


def read_dataset(
    path: Path,
    *,
    filename: str | None = None,
    task: TaskName,
    input_column: str | Sequence[str] | None = None,
    target_columns: Sequence[str] = (),
    weight_column: str | None = None,
    numbers: Collection[str] = (),
    as_files: bool = False,
    skip_broken: bool = False,
    leaves_inputs: bool = False,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> DataArrays:
    """Reads all samples of a file; each array of images or targets is allocated once.

    A target that the file lacks is missing in every row; ``numbers`` and ``skip_broken`` as there. Files of images of several
    sizes stay files, and those of one size too if ``as_files``. ``leaves_inputs`` reads the targets of shards alone: there are no
    inputs then, and answers are empty.

    Raises:
        InvalidFile: as :func:`inspect_dataset`.
    """
    selection = select_columns(
        task,
        input_column=input_column,
        target_columns=target_columns,
        weight_column=weight_column,
        max_unpacked_bytes=max_unpacked_bytes,
        skip_broken=skip_broken,
    )
    selection = replace(selection, without_target="miss", leaves_inputs=leaves_inputs)
    with open_table(path, filename or path.name, selection) as table:
        tallies = _tallies(table, selection, numbers)
        filled: dict[str, _SplitBuilder] = {}
        for chunk in read_chunks(table, selection):
            if chunk.split not in filled:
                filled[chunk.split] = _SplitBuilder.of(chunk, num_rows=table.splits[chunk.split], tallies=tallies)
            filled[chunk.split].add(chunk, tallies)
        settled = {column: tally.settle() for column, tally in tallies.items()}
        _refuse_classes(settled, tallies, numbers)
        told = table.warnings + reading_warnings(tallies, settled, task=task) + column_warnings(table.columns(), selection)
    channels = None if as_files else _channels_of_one_size(filled.values())
    return DataArrays(
        splits={name: filled[name].finish(name, settled, channels=channels) for name in table.splits},
        classes={column: found.classes for column, found in settled.items()},
        label_kinds={column: kind for column, found in settled.items() if (kind := _label_kind(found)) is not None},
        warnings=told,
    )


def _channels_of_one_size(splits: Collection["_SplitBuilder"]) -> int | None:
    """The channels in which files of images are decoded; None if they are of several sizes, or no images."""
    images = [image for split in splits for image in split.inputs if isinstance(image, EncodedImage)]
    if len({(image.height, image.width) for image in images}) != 1:
        return None
    return common_channels({image.channels for image in images})


def select_columns(
    task: TaskName,
    *,
    input_column: str | Sequence[str] | None,
    target_columns: Sequence[str] | None,
    weight_column: str | None = None,
    max_unpacked_bytes: int,
    skip_broken: bool = False,
) -> ColumnSelection:
    """Selects the columns to read; by default those of the task. The input is one column, or the two of a pair of texts.

    Raises:
        InvalidFile: these columns cannot be selected together.
    """
    inputs = _checked_inputs(task, input_column or TASKS[task].input_columns[0])
    targets = TASKS[task].targets if target_columns is None else tuple(target_columns)
    if twice := [name for name in targets if targets.count(name) > 1]:
        raise InvalidFile(f"target {twice[0]!r} is named twice; name each once")
    if both := [name for name in inputs if name in targets]:
        raise InvalidFile(f"the input and a target are both column {both[0]!r}; name two columns")
    most = TASKS[task].max_targets
    if len(targets) > most:
        raise InvalidFile(f"there are {len(targets)} targets; a {task} dataset has at most {most}")
    if weight_column is not None:
        targets = (*targets, _checked_weight(task, weight_column, (*inputs, *targets)))
    without_target: Literal["refuse", "doubt"] = "doubt" if target_columns is None else "refuse"
    return ColumnSelection(
        task,
        inputs,
        targets,
        max_unpacked_bytes,
        weight_column,
        skip_broken=skip_broken,
        without_target=without_target,
    )


def _checked_inputs(task: TaskName, columns: str | Sequence[str]) -> tuple[str, ...]:
    inputs = (columns,) if isinstance(columns, str) else tuple(columns)
    if len(inputs) > 1 and not TASKS[task].takes_pairs:
        raise InvalidFile(f"a {task} reads one column, and {' and '.join(map(repr, inputs))} are named as its input; name one")
    if len(inputs) not in (1, 2) or len(set(inputs)) != len(inputs):
        raise InvalidFile("the input is one column, or two different ones whose texts are read as a pair")
    return inputs


def _checked_weight(task: TaskName, name: str, others: Sequence[str]) -> str:
    if not TASKS[task].takes_weights:
        raise InvalidFile(f"the rows of a {task} dataset have no weights: leave the weight column out")
    if name in others:
        raise InvalidFile(f"column {name!r} is an input or a target, and the weight too; name another")
    return name


def open_table(path: Path, filename: str, selection: ColumnSelection) -> AbstractContextManager[DataTable]:
    """Opens the file with the reader of its format; a folder is one of shards.

    Raises:
        InvalidFile: no reader supports its format, or the file is invalid.
    """
    if path.is_dir():
        return ShardTable(path, selection)
    with path.open("rb") as file:
        start = file.read(4096)
    text = compressed_text(path)
    if text is None:
        refuse_other_format(path, start, filename)
    readers = READERS[selection.input_kind]
    if selection.reads_words:
        readers = {name: reader for name, reader in readers.items() if name != "CSV"}
    found = _format(path, text or start, filename, selection.input_kind)
    if start and found in readers:
        return readers[found](path, selection)
    if not start:
        what = "is empty"
    elif found is None:
        what = f"is neither {' nor '.join(f'{_article(name)} {name}' for name in readers)} file (or its start is damaged)"
    elif found == "CSV" and selection.reads_words:
        what = "is read as a CSV, which has no lists of words, tags or spans"
    else:
        what = f"is {_article(found)} {found} file, which holds no {_INPUTS[selection.input_kind]} to train on"
    ways = " or ".join(f"{name} ({_HOW_TO_WRITE[name]})" for name in readers)
    raise InvalidFile(f"{filename!r} {what}; for {selection.task} send {ways}")


def _format(path: Path, start: bytes, filename: str, kind: InputKind) -> Format | None:
    """Detects the format by the first bytes; for text files by the suffix, then by the first character."""
    if start.startswith(b"PK"):
        return _zip_format(path, filename)
    if is_tar(start):
        return "zip or tar"
    if start.startswith(b"PAR1"):
        return "Parquet"
    if kind != "text":
        return None
    is_json = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    suffix = next((each for each in reversed(PurePath(filename.lower()).suffixes) if each not in COMPRESSED), "")
    if suffix in {".jsonl", ".ndjson", ".json"}:
        return "JSONL"
    if suffix == ".csv" and is_json:
        # Training reads it under another name, so the suffix alone must not decide.
        raise InvalidFile(f"{filename!r} is called a CSV and begins like JSON; call it .jsonl, or rename its first column")
    return "JSONL" if is_json else "CSV"


def _zip_format(path: Path, filename: str) -> Format:
    """Tells an npz, which is a zip too, from a zip of folders: by its members, and by the suffix if that cannot decide."""
    suffix = PurePath(filename).suffix.lower()
    try:
        with zipfile.ZipFile(path) as opened:
            has_arrays = any(name.endswith(".npy") for name in opened.namelist())
    except (*DAMAGE, OSError) as error:
        if not is_damage(error):
            raise
        return "zip or tar" if suffix == ".zip" else "npz"
    return "npz" if has_arrays or suffix == ".npz" else "zip or tar"


def _article(name: str) -> str:
    return "an" if name == "npz" else "a"


def _tallies(table: DataTable, selection: ColumnSelection, numbers: Collection[str]) -> dict[str, TargetTally]:
    tallies: dict[str, TargetTally] = {}
    is_only = len(selection.target_columns) - (selection.weight_column is not None) == 1
    for column in selection.target_columns:
        if column == selection.weight_column:
            tallies[column] = WeightTally(column)
            continue
        match table.targets.get(column, selection.kind_of_lacking):
            case "label":
                tallies[column] = LabelTally(column, names=table.class_names.get(column), is_only=is_only)
            case "number":
                tallies[column] = NumberTally(column, is_only=is_only, is_quantity=column in numbers)
            case "text" | "messages":
                tallies[column] = AnswerTally(column)
            case "labels" | "probabilities":
                tallies[column] = ListTally(column, names=table.class_names.get(column))
            case "tags" | "spans":
                tallies[column] = TagTally(column, names=table.class_names.get(column))
    return tallies


def _refuse_classes(settled: dict[str, Settled], tallies: dict[str, TargetTally], numbers: Collection[str]) -> None:
    for column, found in settled.items():
        if column in numbers and found.classes and not isinstance(tallies[column], NumberTally):
            raise InvalidFile(
                f"column {column!r} holds classes, and dataset.numbers names it: numbers are written as floats (3.0), "
                ".astype('float64')"
            )


def _read_through(
    table: DataTable,
    selection: ColumnSelection,
    tallies: Mapping[str, TargetTally],
    *,
    shards: Path | None,
    facts: FactsTally | None,
) -> None:
    """Reads all rows, counts what they hold and writes them into the folder ``shards``, if there is one."""
    with ExitStack() as stack:
        writer = None if shards is None else stack.enter_context(closing(ShardWriter(shards, table, selection)))
        for stored in _kept_rows(table):
            chunk = _completed(stored, table, selection)
            for tally in tallies.values():
                tally.add(chunk)
            digests, num_bytes = sample_digests(chunk, table.targets), decoded_bytes(chunk.inputs)
            if facts is not None:
                facts.add(stored, digests, num_bytes=num_bytes)
            if writer is not None:
                writer.add(stored, digests, num_bytes=num_bytes)
        if writer is not None:
            writer.finish()


def read_chunks(table: DataTable, selection: ColumnSelection) -> Iterator[Chunk]:
    """Yields all rows, with missing labels for the targets that the file lacks, and texts as words where the task reads words."""
    for chunk in _kept_rows(table):
        yield _completed(chunk, table, selection)


def _kept_rows(table: DataTable) -> Iterator[Chunk]:
    """Yields the rows without those whose file is left out, which no split counts any more."""
    for chunk in table.chunks():
        if isinstance(chunk.inputs, np.ndarray) or all(each is not None for each in chunk.inputs):
            yield chunk
            continue
        rows = np.array([row for row, each in enumerate(chunk.inputs) if each is not None], dtype=np.int64)
        table.splits[chunk.split] -= len(chunk.rows) - len(rows)
        if not table.splits[chunk.split]:
            del table.splits[chunk.split]
        if len(rows):
            yield chunk.take(rows)


def _completed(chunk: Chunk, table: DataTable, selection: ColumnSelection) -> Chunk:
    if selection.reads_words:
        words = as_words(chunk, selection.input_column)
        return replace(words, targets={**words.targets, **{column: [None] * len(words.rows) for column in table.lacking}})
    if selection.reads_chats:
        refuse_chats_as_text(cast(Sequence[str], chunk.inputs), place=partial(chunk.place, selection.input_column))
    missing = {column: np.full(len(chunk.rows), -1, dtype=np.int64) for column in table.lacking}
    return replace(chunk, targets={**chunk.targets, **missing}) if missing else chunk


def _label_kind(found: Settled) -> Literal["labels", "probabilities"] | None:
    return found.kind if found.kind == "labels" or found.kind == "probabilities" else None


def _absent(of_input: Column, selection: ColumnSelection) -> Column:
    """The description of a target that the file lacks, beside an input of that description."""
    kind = selection.word_targets(cast(InputColumnKind, of_input.kind)) if selection.reads_words else "label"
    return Column(kind=kind, dtype="null")


def _described(column: Column, found: Settled) -> Column:
    return column.model_copy(
        update={
            "num_classes": None if found.classes is None else len(found.classes),
            "classes": found.classes,
            "class_counts": found.counts,
            "num_missing": sum(found.missing_counts.values()),
            "missing_counts": found.missing_counts,
            "kind": found.kind or ("label" if column.kind == "number" and found.classes is not None else column.kind),
        }
    )


@dataclass
class _SplitBuilder:
    """The arrays of one split while it is being read."""

    inputs: NDArray[np.generic] | list[object]
    """Files of images as such, until the sizes of all are known."""
    targets: dict[str, TargetArray]
    num_filled: int = field(default=0)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    lines: list[NDArray[np.int64]] = field(default_factory=list)

    @classmethod
    def of(cls, chunk: Chunk, *, num_rows: int, tallies: dict[str, TargetTally]) -> "_SplitBuilder":
        first = chunk.inputs
        room = np.empty((num_rows, *first.shape[1:]), dtype=first.dtype) if isinstance(first, np.ndarray) else None
        targets = {column: tally.empty(num_rows) for column, tally in tallies.items()}
        return cls(inputs=[] if room is None else room, targets=targets)

    def add(self, chunk: Chunk, tallies: dict[str, TargetTally]) -> None:
        start, stop = self.num_filled, self.num_filled + len(chunk.rows)
        if isinstance(self.inputs, np.ndarray):
            self.inputs[start:stop] = cast(NDArray[np.generic], chunk.inputs)
        elif len(chunk.inputs) and isinstance(chunk.inputs[0], EncodedImage):
            self.inputs.extend(chunk.inputs)
        else:
            self.inputs.extend(decode(chunk.inputs))
        for column, tally in tallies.items():
            values = tally.add(chunk)
            if len(chunk.inputs) or not isinstance(tally, AnswerTally):
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
