"""Streams a dataset of the Hub into one Parquet file and that into shards, in a process of its own: a few MB at a time.

So a dataset of the Hub is read, checked and refused as an uploaded Parquet file is. Files of images and of sound stay as they are
stored; those that lie beside the rows are read if they are the repository's own.
"""

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.load import dataset_module_factory
from fsspec.implementations.local import LocalFileSystem
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from service.error_numbers import is_machines_number
from service.errors import InvalidFile
from service.formats import inspect_dataset
from service.formats.chat import TOOLS_COLUMN
from service.formats.chunk import SPLIT_COLUMN, check_num_splits, check_split_name
from service.formats.shards.mapped import map_shards
from service.spec.source import HubData, split_hub_data
from service.spec.tasks import TASKS
from worker.sources.data_files import DataFile
from worker.sources.errors import HubAway, SourceRefused
from worker.sources.hub import as_told
from worker.sources.hub_data import DESCRIPTION_FILE
from worker.sources.own_process import answer

_ROWS_AT_ONCE, _FILES_AT_ONCE = 256, 16
"""Of rows without and with files of images or of sound."""
_GROUP_BYTES = 8 * 2**20
_ROWS_FILE = "rows.parquet"
_READERS = ("arrow", "audiofolder", "csv", "imagefolder", "json", "parquet", "text", "webdataset")
"""Those of the library's modules that may read a repository."""
_OWN_PROTOCOLS = ("hf", "tar", "zip")
"""The library's file systems of the repository itself, and of archives in it."""
_NOT_THERE = "its card names files that are not in the repository: copy them there"


def write(data: HubData, file: DataFile, folder: Path, *, commit: str, token: str | None, numbers: Sequence[str] = ()) -> None:
    """Writes the shards and the description of the rows at ``commit``; what an earlier try left in the folder is removed.

    Raises:
        InvalidFile: they cannot be read as such data.
    """
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    rows = folder / _ROWS_FILE
    with TemporaryDirectory(dir=folder) as cache:
        streams = _streams(data, file, {"revision": commit, "token": token, "cache_dir": cache})
        counts = _write_rows(streams, file, rows, files=_Files(data.repository, commit, token))
    is_usual = file.target_columns == TASKS[file.task].targets
    try:
        info = inspect_dataset(
            rows,
            filename=file.filename,
            task=file.task,
            input_column=file.input_column,
            target_columns=None if is_usual else file.target_columns,
            weight_column=file.weight_column,
            numbers=numbers,
            skip_broken=file.skip_broken,
            shards=folder,
        )
    except InvalidFile as error:
        raise InvalidFile(f"{error.detail}{_place(error.detail, rows, counts, file.input_column[0])}") from error
    rows.unlink()
    map_shards(folder)
    (folder / DESCRIPTION_FILE).write_text(info.model_dump_json())


def _place(told: str, rows: Path, counts: Mapping[str, int], column: str) -> str:
    """Where in the repository the row is that a message tells the number of: its split, and its file if it is one."""
    found = re.search(r"\brow (\d+)", told)
    if found is None:
        return ""
    number = int(found[1])
    *_, (first, split) = ((first, split) for split, first in _firsts(counts) if first <= number)
    place = "" if len(counts) == 1 else f"row {number - first} of split {split!r}"
    with pq.ParquetFile(rows) as file:
        if column in file.schema_arrow.names and _holds_files(file.schema_arrow.field(column).type):
            batches = file.iter_batches(_FILES_AT_ONCE, columns=[f"{column}.path"])
            values = itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches)
            value = next(itertools.islice(values, number, None))
            place = ", ".join(filter(None, [place, value and value["path"]]))
    return f" ({place})" if place else ""


def _holds_files(type_: pa.DataType) -> bool:
    return bool(pa.types.is_struct(type_) and type_.get_field_index("path") >= 0)


def _firsts(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The splits, and the number of the first row of each."""
    return zip(counts, itertools.accumulate(counts.values(), initial=0), strict=False)


def _streams(data: HubData, file: DataFile, options: dict[str, Any]) -> Mapping[str, Any]:
    """The rows of each split, in the columns to read alone, their files not decoded."""
    download = datasets.DownloadConfig(token=options["token"], cache_dir=options["cache_dir"])
    found = dataset_module_factory(data.repository, revision=options["revision"], download_config=download)
    reader = found.module_path.rpartition(".")[2]
    if reader not in _READERS:
        raise InvalidFile(f"files of its kind ({reader}) are not read: name a revision that has its rows as Parquet")
    config = _config(data, found.builder_configs_parameters)
    builder = datasets.load_dataset_builder(data.repository, config, **options)
    files = _Files(data.repository, options["revision"], options["token"])
    for paths in (builder.config.data_files or {}).values():
        for path in paths:
            files.require(path)
    streams = builder.as_streaming_dataset()
    known = {split: stream if stream.features is not None else stream._resolve_features() for split, stream in streams.items()}
    wanted = {split: _wanted(file, stream.features) for split, stream in known.items()}
    if reader == "parquet":  # of which other columns need not be fetched
        columns = list(dict.fromkeys(name for names in wanted.values() for name in names))
        rows_at_once = _rows_at_once([stream.features[name] for stream in known.values() for name in columns])
        builder = datasets.load_dataset_builder(data.repository, config, columns=columns, batch_size=rows_at_once, **options)
        known = builder.as_streaming_dataset()
    return {split: stream.decode(False).select_columns(wanted[split]) for split, stream in known.items()}


def _config(data: HubData, found: Any) -> str:
    """The config that was named, or the only one, or the one that the repository itself makes its default."""
    names = [config.name for config in found.builder_configs or []]
    # The library's own default is also the only config that the card describes, though it lists others.
    marked = found.metadata_configs.get_default_config_name() if found.metadata_configs else None
    name: str | None = data.config or marked or (names[0] if len(names) == 1 else None)
    if name is not None and name in names:
        return name
    shown = ", ".join(f"{data.source}:{each}" for each in names[:20])
    if name is None:
        raise InvalidFile(f"it has several configs: name one of {shown}")
    raise InvalidFile(f"there is no config {name!r}; there are {shown}")


class _Files:
    """The files of a repository that its rows name by path."""

    def __init__(self, repository: str, commit: str, token: str | None) -> None:
        self._system, self._own = HfFileSystem(token=token), f"hf://datasets/{repository}@{commit}/"

    def require(self, path: str) -> None:
        """Raises InvalidFile for a file that is not the repository's, such as one of this host."""
        inner = path.rpartition("::")[2]  # of zip://a.png::hf://…
        if not inner.startswith(self._own) or ".." in path.split("/"):
            raise InvalidFile(f"it names the file {path[:200]!r}, which is not in the repository: copy it there")

    def read(self, path: str) -> bytes:
        self.require(path)
        try:
            content: bytes = self._system.cat_file(path)
        except FileNotFoundError:
            raise InvalidFile(f"a row names the file {path[:200]!r}, which is not there") from None
        return content


def _write_rows(streams: Mapping[str, Any], file: DataFile, path: Path, *, files: _Files) -> Counter[str]:
    """Writes the rows of all splits into one file; returns their numbers, in the order of the splits."""
    check_num_splits(len(streams))
    counts: Counter[str] = Counter()
    writer: pq.ParquetWriter | None = None
    try:
        for split, stream in streams.items():
            if writer is None:
                features = stream.features
                schema = datasets.Features(features | {SPLIT_COLUMN: datasets.Value("string")}).arrow_schema
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            tables = stream.with_format("arrow").iter(batch_size=_rows_at_once(features.values()))
            for table in _groups(_as_written(each, schema, check_split_name(split), features, files) for each in tables):
                writer.write_table(table)
                counts[split] += len(table)
    finally:
        if writer is not None:
            writer.close()
    return counts


def _wanted(file: DataFile, features: Mapping[str, Any]) -> list[str]:
    """The columns to read. Raises InvalidFile if one is not there."""
    optional = {*(file.target_columns if file.target_columns == TASKS[file.task].targets else ()), TOOLS_COLUMN}
    weights = [] if file.weight_column is None else [file.weight_column]
    wanted = []
    for name in dict.fromkeys([*file.input_column, *file.target_columns, *weights, TOOLS_COLUMN]):
        if name == SPLIT_COLUMN:
            raise InvalidFile(f"the column {SPLIT_COLUMN!r} is taken for the split of each row: rename yours")
        top = name if name in features else name.partition(".")[0]
        if top in features:
            wanted.append(top)
        elif name not in optional:
            raise InvalidFile(f"there is no column {name!r}; its columns are {', '.join(map(repr, list(features)[:50]))}")
    return list(dict.fromkeys(wanted))


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Joins tables up to the size of a row group."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(each.nbytes for each in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _as_written(table: pa.Table, schema: pa.Schema, split: str, features: Mapping[str, Any], files: _Files) -> pa.Table:
    """The rows with their split, in the columns of the first split; a target that a split lacks is missing."""
    columns = []
    for field in schema:
        if field.name == SPLIT_COLUMN:
            columns.append(pa.array([split] * len(table), pa.string()))
        elif field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
        else:
            column = table[field.name]
            if _is_file(features[field.name]):
                column = _with_bytes(column, files)
            columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _rows_at_once(features: Iterable[Any]) -> int:
    return _FILES_AT_ONCE if any(map(_is_file, features)) else _ROWS_AT_ONCE


def _is_file(feature: Any) -> bool:
    return isinstance(feature, datasets.Image | datasets.Audio)


def _with_bytes(column: pa.ChunkedArray, files: _Files) -> pa.ChunkedArray:
    rows = column.to_pylist()
    beside = [row for row in rows if row is not None and row["bytes"] is None and row["path"] is not None]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for row, content in zip(beside, pool.map(files.read, [row["path"] for row in beside]), strict=True):
            row["bytes"] = content
    return pa.chunked_array([pa.array(rows, column.type)])


_READ_ERRORS = (datasets.exceptions.DatasetsError, pa.ArrowException, ValueError, TypeError, KeyError)


def convert(request: dict[str, Any]) -> list[Any]:
    """Answers the request of :func:`worker.sources.hub_data.convert_hub`."""
    source, token, named = request["source"], request["token"], request["file"]
    file = DataFile(
        **named | {"input_column": tuple(named["input_column"]), "target_columns": tuple(named["target_columns"])},
    )
    data = split_hub_data(source)
    try:
        write(data, file, Path(request["folder"]), commit=request["commit"], token=token, numbers=request["numbers"])
    except InvalidFile as error:
        return ["invalid", error.detail]
    except Exception as error:  # noqa: BLE001 - whatever it is, it may hold the token
        return _told(data, error, token)
    return ["done"]


def _told(data: HubData, error: Exception, token: str | None) -> list[Any]:
    """The answer for an error of the libraries, by what it was raised from."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for each in causes:
        if isinstance(each, InvalidFile):
            return ["invalid", each.detail]
        if isinstance(each, datasets.exceptions.DatasetNotFoundError):
            hint = "Name another, or give the service your token (stillhouse hub-token set), or the worker HF_TOKEN."
            return ["refused", f"{data.source} cannot be fetched: it is gone, or is not for this token.", hint]
        if isinstance(each, HfHubHTTPError | ConnectionError | TimeoutError):
            return _answer(as_told(data.source, each, token))
        if isinstance(each, OSError) and each.errno is not None and is_machines_number(each.errno):
            return ["machine", each.errno, each.strerror or ""]
    words = re.sub(r"\s+", " ", str(causes[-1] if isinstance(causes[-1], _READ_ERRORS) else error))[:300]
    if token:
        words = words.replace(token, "…")
    if any(isinstance(each, _READ_ERRORS) for each in causes):
        return ["invalid", f"its rows cannot be read ({words}): correct the files, or name a revision or a config that can"]
    if isinstance(error, OSError):
        return _answer(as_told(data.source, error, token))
    if isinstance(error, RuntimeError) and "script" in words:
        return ["invalid", "it is made by a script of its own, which is never run: name a revision that has its rows as Parquet"]
    return ["failed", f"{type(error).__name__}: {words}"]


def _answer(told: Exception) -> list[Any]:
    match told:
        case SourceRefused():
            return ["refused", told.message, told.hint]
        case HubAway():
            return ["away", told.message, told.hint]
        case OSError():
            return ["machine", told.errno or 0, str(told.strerror or told)]
    return ["failed", type(told).__name__]


def confine() -> None:
    """Has the libraries of this process read the repository at its commit, and nothing that its card may point to."""
    datasets.config.USE_PARQUET_EXPORT = False  # the Hub's own export, and what it tells of columns, may be of another commit
    for protocol in fsspec.available_protocols():
        if protocol not in _OWN_PROTOCOLS:
            is_local = protocol in ("file", "local")
            fsspec.register_implementation(protocol, _ThisHost if is_local else _Elsewhere, clobber=True)


class _Elsewhere(fsspec.AbstractFileSystem):  # type: ignore[misc]
    def __init__(self, *_: object, **__: object) -> None:
        raise InvalidFile(_NOT_THERE)


class _ThisHost(LocalFileSystem):  # type: ignore[misc]
    """The library keeps what it fetches there; which files there are is told to nobody."""

    def glob(self, path: str, *_: object, **__: object) -> NoReturn:
        raise InvalidFile(_NOT_THERE)


if __name__ == "__main__":
    confine()
    answer(convert)
