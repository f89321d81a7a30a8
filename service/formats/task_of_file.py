"""Tells what a dataset file is for, where its uploader does not: by the kind of its files, or by the names of its columns."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InvalidFile
from service.formats.chunk import USUAL_PAIRS
from service.formats.readers.csv import CsvRecords
from service.formats.readers.jsonl import JsonlRecords
from service.formats.readers.members import open_members
from service.formats.readers.opening import MAX_UNPACKED_BYTES, Format, format_of
from service.spec.tasks import TaskName

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
            return FilePurpose("image-classification")
        case "zip or tar":
            with open_members(path, max_unpacked_bytes=MAX_UNPACKED_BYTES) as members:
                is_sound = any(each.suffix.lower() in _OF_SOUND for each in members.paths)
            return FilePurpose("audio-classification" if is_sound else "image-classification")
    names = _columns(path, found, inputs)
    purpose = _of_columns(names, has_targets=bool(targets), inputs=inputs)
    if purpose is None:
        listed = ", ".join(repr(name)[:80] for name in names[:_SHOWN]) or "none"
        raise InvalidFile(
            f"{filename!r} does not tell what it is for: its columns are {listed}; name its task (--task), its input_column "
            "(--input-column) and, of what is predicted, its target_column (--target-column)"
        )
    return purpose


def _of_columns(names: Collection[str], *, has_targets: bool, inputs: Sequence[str]) -> FilePurpose | None:
    pair = next((pair for pair in USUAL_PAIRS if set(pair) <= set(names)), None)
    is_labelled = has_targets or "label" in names
    if inputs:
        return FilePurpose("text-classification") if is_labelled and set(inputs) <= set(names) else None
    if "image" in names:
        return FilePurpose("image-classification")
    if "audio" in names:
        return FilePurpose("audio-classification")
    if "tokens" in names and ("tags" in names or has_targets):
        return FilePurpose("token-classification")
    if {"text", "spans"} <= set(names):
        return FilePurpose("token-classification", inputs=("text",), targets=("spans",))
    if "messages" in names:
        return FilePurpose("causal-lm", inputs=("messages",))
    if {"prompt", "completion"} <= set(names):
        return FilePurpose("causal-lm", inputs=("prompt",), targets=("completion",))
    if pair is not None and is_labelled:
        return FilePurpose("text-classification", inputs=pair)
    if "text" in names and is_labelled:
        return FilePurpose("text-classification")
    return None


def _columns(path: Path, found: Format, inputs: Sequence[str]) -> list[str]:
    """The columns of a file of rows. A CSV is separated by what gives it a column that is known here."""
    if found == "Parquet":
        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InvalidFile(f"the file is no readable Parquet: {str(error)[:200]}") from error
    if found == "JSONL":
        return list(JsonlRecords(path, ()).columns)
    usual = [*inputs, "text", "prompt", *(first for first, _ in USUAL_PAIRS)]
    read = [list(CsvRecords(path, name).columns) for name in usual]
    return next((columns for name, columns in zip(usual, read, strict=True) if name in columns), read[0])
