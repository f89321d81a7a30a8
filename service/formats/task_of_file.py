"""Tells what a dataset file is for, where its uploader does not: by the kind of its files, or by the names of its columns."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InvalidFile
from service.formats.columns.arrow import is_string
from service.formats.readers.csv import CsvRecords
from service.formats.readers.jsonl import JsonlRecords
from service.formats.readers.members import open_members
from service.formats.readers.opening import MAX_UNPACKED_BYTES, Format, format_of
from service.spec.tasks import TASKS, TaskName, first_task

_SHOWN = 20
_OF_SOUND = {".wav", ".flac", ".mp3", ".ogg", ".m4a"}


@dataclass(frozen=True)
class FilePurpose:
    """A task, and the columns of a file that are for it; None for those that the task has by default."""

    task: TaskName
    inputs: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None


def purpose_of(path: Path, filename: str, *, inputs: Sequence[str] = (), targets: Sequence[str] = ()) -> FilePurpose:
    """What the file is for; ``inputs`` and ``targets`` are the columns that its uploader named.

    Raises:
        InvalidFile: it cannot be told, or the file cannot be opened.
    """
    found = format_of(path, filename, "text")
    match found:
        case None:
            raise InvalidFile(f"{filename!r} is empty")
        case "npz":
            return FilePurpose(first_task("image"))
        case "zip or tar":
            with open_members(path, max_unpacked_bytes=MAX_UNPACKED_BYTES) as members:
                is_sound = any(each.suffix.lower() in _OF_SOUND for each in members.paths)
            return FilePurpose(first_task("audio" if is_sound else "image"))
    names, texts = _columns(path, found, inputs)
    if inputs and set(inputs) <= texts and (targets or set(TASKS[first_task("text")].targets) <= set(names)):
        return FilePurpose(first_task("text"))
    told = [] if inputs else _told_by(names, has_targets=bool(targets))
    if len(told) == 1:
        return told[0]
    listed = ", ".join(repr(name)[:80] for name in names[:_SHOWN]) or "none"
    what = f"may be for {' or '.join(each.task for each in told)}" if told else "does not tell what it is for"
    raise InvalidFile(
        f"{filename!r} {what}: its columns are {listed}; name its task (--task), its input_column (--input-column) and, of what "
        "is predicted, its target_column (--target-column)"
    )


def _told_by(names: Collection[str], *, has_targets: bool) -> list[FilePurpose]:
    """One purpose for each task of whose usual columns there are some."""
    told = []
    for task, info in TASKS.items():
        for usual in info.told_by:
            named = has_targets and usual.targets in ((), info.targets)
            if set(usual.inputs) <= set(names) and (named or set(usual.targets) <= set(names)):
                inputs = None if usual.inputs == info.input_columns[:1] else usual.inputs
                targets = None if usual.targets in ((), info.targets) else usual.targets
                told.append(FilePurpose(task, inputs, targets))
                break
    return told


def _columns(path: Path, found: Format, inputs: Sequence[str]) -> tuple[list[str], set[str]]:
    """The columns of a file of rows, and those of texts. A CSV is separated by what gives it a column that is known here."""
    if found == "Parquet":
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise InvalidFile(f"the file is no readable Parquet: {str(error)[:200]}") from error
        return list(schema.names), {field.name for field in schema if is_string(field.type)}
    if found == "JSONL":
        names = list(JsonlRecords(path, ()).columns)
        return names, set(names)
    usual = [*inputs, *dict.fromkeys(name for info in TASKS.values() for each in info.told_by for name in each.inputs)]
    read = [list(CsvRecords(path, name).columns) for name in usual]
    names = next((columns for name, columns in zip(usual, read, strict=True) if name in columns), read[0])
    return names, set(names)
