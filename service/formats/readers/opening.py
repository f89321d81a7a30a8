"""Opens a dataset file with the reader of its format, which its first bytes tell."""

import zipfile
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import Literal

from service.archives import DAMAGE, is_damage
from service.errors import InvalidFile
from service.formats.chunk import ColumnSelection, DataTable, Reader
from service.formats.readers.csv import open_csv
from service.formats.readers.folder import FolderTable
from service.formats.readers.jsonl import open_jsonl
from service.formats.readers.members import is_tar
from service.formats.readers.npz import NpzTable
from service.formats.readers.other_formats import COMPRESSED, refuse_other_format
from service.formats.readers.parquet import ParquetTable
from service.formats.readers.text_file import compressed_text
from service.formats.shards.table import ShardTable
from service.spec.tasks import InputKind

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


def open_table(path: Path, filename: str, selection: ColumnSelection) -> AbstractContextManager[DataTable]:
    """Opens the file with the reader of its format; a folder is one of shards.

    Raises:
        InvalidFile: no reader supports its format, or the file is invalid.
    """
    if path.is_dir():
        return ShardTable(path, selection)
    found = format_of(path, filename, selection.input_kind)
    readers = READERS[selection.input_kind]
    if selection.reads_words:
        readers = {name: reader for name, reader in readers.items() if name != "CSV"}
    if found in readers:
        return readers[found](path, selection)
    if found is None and path.stat().st_size == 0:
        what = "is empty"
    elif found is None:
        what = f"is neither {' nor '.join(f'{_article(name)} {name}' for name in readers)} file (or its start is damaged)"
    elif found == "CSV" and selection.reads_words:
        what = "is read as a CSV, which has no lists of words, tags or spans"
    else:
        what = f"is {_article(found)} {found} file, which holds no {_INPUTS[selection.input_kind]} to train on"
    ways = " or ".join(f"{name} ({_HOW_TO_WRITE[name]})" for name in readers)
    raise InvalidFile(f"{filename!r} {what}; for {selection.task} send {ways}, or name another task (--task)")


def format_of(path: Path, filename: str, kind: InputKind) -> Format | None:
    """Detects the format of a file by its first bytes; None for what is none of them. Raises InvalidFile if it is not read."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        return None
    text = compressed_text(path)
    if text is None:
        refuse_other_format(path, start, filename)
    return _format(path, text or start, filename, kind)


def _format(path: Path, start: bytes, filename: str, kind: InputKind) -> Format | None:
    """Tells files of text by the suffix, then by the first character."""
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
