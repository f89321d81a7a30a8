"""Reads a dataset file through: to describe it, to write it as shards, or into arrays."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from service.errors import InvalidFile
from service.formats.arrays import DataArrays, SplitBuilder, channels_of_one_size, label_kind
from service.formats.chat import refuse_chats_as_text
from service.formats.chunk import Chunk, ColumnSelection, DataTable
from service.formats.dataset_warnings import column_warnings, reading_warnings, split_warnings, target_warnings
from service.formats.facts import FactsTally, leak_warnings
from service.formats.readers.opening import MAX_UNPACKED_BYTES, open_table
from service.formats.selection import select_columns
from service.formats.shards.values import decoded_bytes, sample_digests
from service.formats.shards.writer import ShardWriter
from service.formats.targets.label import LabelTally
from service.formats.targets.list_label import ListTally
from service.formats.targets.number import NumberTally
from service.formats.targets.tags import TagTally
from service.formats.targets.target import Settled, TargetTally
from service.formats.targets.weight import WeightTally
from service.formats.text import AnswerTally
from service.formats.words import as_words
from service.spec.data import Column, DatasetInfo
from service.spec.tasks import InputColumnKind, TaskName


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
    """Writes the rows of a file into a folder of shards, which reads as the file does; see :mod:`service.formats.shards.index`.

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
        filled: dict[str, SplitBuilder] = {}
        for chunk in read_chunks(table, selection):
            if chunk.split not in filled:
                filled[chunk.split] = SplitBuilder.of(
                    chunk, num_rows=table.splits[chunk.split], tallies=tallies, leaves_inputs=leaves_inputs
                )
            filled[chunk.split].add(chunk, tallies)
        settled = {column: tally.settle() for column, tally in tallies.items()}
        _refuse_classes(settled, tallies, numbers)
        told = table.warnings + reading_warnings(tallies, settled, task=task) + column_warnings(table.columns(), selection)
    channels = None if as_files else channels_of_one_size(filled.values())
    return DataArrays(
        splits={name: filled[name].finish(name, settled, channels=channels) for name in table.splits},
        classes={column: found.classes for column, found in settled.items()},
        label_kinds={column: kind for column, found in settled.items() if (kind := label_kind(found)) is not None},
        warnings=told,
    )


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
