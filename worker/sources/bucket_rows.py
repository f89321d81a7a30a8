"""Reads a file of a bucket, or a folder of Parquet or JSONL files, into shards, in a process of its own.

A file is fetched and read as an uploaded one is, a folder streamed as a dataset of the Hub is. Invariant: the files are those of
the revision, in what a listing tells of each, before they are read and after.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import fsspec
import pyarrow as pa
from datasets.data_files import SPLIT_KEYWORDS, DataFilesDict, DataFilesList
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet

from service.errors import InvalidFile
from worker.sources.bucket import digest, listed, told
from worker.sources.data_files import DataFile
from worker.sources.own_process import answer
from worker.sources.streamed_rows import RowFiles, clear, open_streams, write_file, write_streams

_BUILDERS = {"parquet": Parquet, "json": Json}
_SUFFIXES = {"parquet": (".parquet",), "json": (".jsonl", ".ndjson")}
"""Of the files of a folder, by what reads them."""
_SHARD = re.compile(r"(?P<split>\w[\w.]*)-\d{5}-of-\d{5}\.")
_BETWEEN_WORDS = re.compile(r"[-._ 0-9/]+")
_READ_ERRORS = (datasets.exceptions.DatasetsError, pa.ArrowException, ValueError, TypeError, KeyError)


class _Changed(Exception):
    """The files are not those of the revision."""


def convert(request: dict[str, Any]) -> list[Any]:
    """Answers the request of :func:`worker.sources.remote_data.convert_remote`."""
    source = request["source"]
    try:
        system, path = fsspec.url_to_fs(source)
        found = listed(system, path)
        _require(found, request["revision"])
        _write(request, system, path, found)
        system.invalidate_cache()
        _require(listed(system, path), request["revision"])
    except _Changed:
        return ["changed"]
    except Exception as error:  # noqa: BLE001 - what it is, its answer tells
        return told(source, error, read_errors=_READ_ERRORS)
    return ["done"]


def _require(found: Mapping[str, dict[str, Any]], revision: str) -> None:
    if digest(found) != revision:
        raise _Changed


def _write(request: dict[str, Any], system: Any, path: str, found: Mapping[str, dict[str, Any]]) -> None:
    file, folder = DataFile.from_json(request["file"]), Path(request["folder"])
    clear(folder)
    with TemporaryDirectory(dir=folder) as cache:
        if list(found) == [path]:
            original = Path(cache) / "original"
            system.get_file(path, str(original))
            write_file(original, file, folder, numbers=request["numbers"])
            return
        names = _data_files(path, found)
        reader = _reader(names)
        urls = {split: list(map(system.unstrip_protocol, each)) for split, each in _by_split(path, names).items()}
        marks = [(request["revision"],)]
        by_split = DataFilesDict({split: DataFilesList(each, marks * len(each)) for split, each in urls.items()})
        files = RowFiles(system, system.unstrip_protocol(path))
        load = partial(_BUILDERS[reader], data_files=by_split, cache_dir=cache)
        file = replace(file, filename=f"{file.filename}.parquet")
        write_streams(open_streams(load, reader, file, files), file, folder, files=files, numbers=request["numbers"])


def _data_files(path: str, found: Mapping[str, dict[str, Any]]) -> list[str]:
    """Those that are no marks of the program that wrote them. Raises InvalidFile for a table whose files are not its rows."""
    names = []
    for name in found:
        parts = name.removeprefix(path).strip("/").split("/")
        if "_delta_log" in parts or name.endswith(".metadata.json"):
            raise InvalidFile("it is a table of Delta or Iceberg, whose files hold deleted rows too: export it as Parquet")
        if not any(part.startswith(("_", ".")) for part in parts):
            names.append(name)
    return names


def _reader(names: Sequence[str]) -> str:
    """How the files of a folder are read. Raises InvalidFile unless all are of one kind."""
    readers = {name: next((reader for reader, ends in _SUFFIXES.items() if name.endswith(ends)), None) for name in names}
    if not names:
        raise InvalidFile("the folder holds no files")
    if other := next((name for name, reader in readers.items() if reader is None), None):
        raise InvalidFile(
            f"{other} is neither Parquet nor JSONL: a folder holds one of the two alone, not packed; name a file by itself"
        )
    if len(set(readers.values())) > 1:
        raise InvalidFile("the folder holds both Parquet and JSONL files: name one of them, or move them apart")
    return str(readers[names[0]])


def _by_split(path: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split, by names as the Hub knows them: ``NAME-00000-of-00001``, or a word such as ``train`` or ``dev``.

    Raises:
        InvalidFile: some of the files are of no split, or one is of several.
    """
    sharded = [_SHARD.match(name.rpartition("/")[2]) for name in names]
    named = [{found["split"]} for found in sharded if found] if all(sharded) else [_splits_named(path, name) for name in names]
    if not any(named):
        return {"train": list(names)}
    found: dict[str, list[str]] = {}
    for name, splits in zip(names, named, strict=True):
        if len(splits) != 1:
            count = "several splits" if splits else "no split, and others are"
            raise InvalidFile(f"{name} is by its name of {count}: name each file, or its folder, by one, or none by any")
        found.setdefault(next(iter(splits)), []).append(name)
    return found


def _splits_named(path: str, name: str) -> set[str]:
    words = set(_BETWEEN_WORDS.split(name.removeprefix(path)))
    return {str(split) for split, keywords in SPLIT_KEYWORDS.items() if words & set(keywords)}


if __name__ == "__main__":
    answer(convert)
