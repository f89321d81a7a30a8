"""Rows that are streamed by the ``datasets`` library, written into one Parquet file and that into shards: a few MB at a time.

So they are read, checked and refused as an uploaded Parquet file is. Files of images and of sound stay as they are stored; those
that lie beside the rows are read if they are the source's own.
"""

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InvalidFile
from service.formats import inspect_dataset
from service.formats.chat import TOOLS_COLUMN
from service.formats.chunk import SPLIT_COLUMN, check_num_splits, check_split_name
from service.formats.shards.mapped import map_shards
from service.spec.tasks import TASKS
from worker.sources.data_files import DataFile
from worker.sources.remote_data import DESCRIPTION_FILE

_ROWS_AT_ONCE, _FILES_AT_ONCE = 256, 16
"""Of rows without and with files of images or of sound."""
_GROUP_BYTES = 8 * 2**20
_ROWS_FILE = "rows.parquet"


class RowFiles:
    """The files of a source that its rows name by path; ``root`` is where all of them lie."""

    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root.rstrip("/") + "/"

    def require(self, path: str) -> None:
        """Raises InvalidFile for a file that is not the source's, such as one of this host."""
        inner = path.rpartition("::")[2]  # of zip://a.png::hf://…
        if not inner.startswith(self._root) or ".." in path.split("/"):
            raise InvalidFile(f"it names the file {path[:200]!r}, which is not its own: copy it there")

    def read(self, path: str) -> bytes:
        """Reads such a file. Raises InvalidFile if it is none, or not there."""
        self.require(path)
        try:
            content: bytes = self._system.cat_file(path)
        except FileNotFoundError:
            raise InvalidFile(f"a row names the file {path[:200]!r}, which is not there") from None
        return content


def open_streams(load: Callable[..., Any], reader: str, file: DataFile, files: RowFiles) -> Mapping[str, Any]:
    """The rows of each split, in the columns to read alone, their files not decoded.

    ``load`` makes the library's builder of such a ``reader``, with further options of it.

    Raises:
        InvalidFile: a column is not there, or a file is not the source's own.
    """
    # By default the library takes texts such as "None" and "NA" for values that are missing.
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]} if reader == "csv" else {}
    builder = load(**options)
    for path in itertools.chain.from_iterable((builder.config.data_files or {}).values()):
        files.require(path)
    streams = builder.as_streaming_dataset()
    known = {split: stream if stream.features is not None else stream._resolve_features() for split, stream in streams.items()}
    wanted = {split: _wanted(file, stream.features, is_only=len(known) == 1) for split, stream in known.items()}
    if reader == "parquet":  # of which other columns need not be fetched
        columns = list(dict.fromkeys(itertools.chain.from_iterable(wanted.values())))
        rows_at_once = _rows_at_once([stream.features[name] for stream in known.values() for name in columns])
        known = load(columns=columns, batch_size=rows_at_once).as_streaming_dataset()
    return {split: stream.decode(False).select_columns(wanted[split]) for split, stream in known.items()}


def write_streams(streams: Mapping[str, Any], file: DataFile, folder: Path, *, files: RowFiles, numbers: Sequence[str]) -> None:
    """Writes the shards of the rows of all splits, and their description. Raises InvalidFile if they cannot be read as such."""
    rows = folder / _ROWS_FILE
    counts = _write_rows(streams, rows, files=files)
    try:
        write_file(rows, file, folder, numbers=numbers)
    except InvalidFile as error:
        raise InvalidFile(f"{error.detail}{_place(error.detail, rows, counts, file.input_column[0])}") from error
    rows.unlink()


def write_file(path: Path, file: DataFile, folder: Path, *, numbers: Sequence[str]) -> None:
    """Writes the shards of a file, and their description. Raises InvalidFile if it cannot be read as such."""
    is_usual = file.target_columns == TASKS[file.task].targets
    info = inspect_dataset(
        path,
        filename=file.filename,
        task=file.task,
        input_column=file.input_column,
        target_columns=None if is_usual else file.target_columns,
        weight_column=file.weight_column,
        numbers=numbers,
        skip_broken=file.skip_broken,
        shards=folder,
    )
    map_shards(folder)
    (folder / DESCRIPTION_FILE).write_text(info.model_dump_json())


def clear(folder: Path) -> None:
    """Removes what an earlier try left."""
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


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


def _write_rows(streams: Mapping[str, Any], path: Path, *, files: RowFiles) -> Counter[str]:
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


def _wanted(file: DataFile, features: Mapping[str, Any], *, is_only: bool) -> list[str]:
    """The columns to read, of the only split those that name splits too. Raises InvalidFile if one is not there."""
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
    if is_only and getattr(features.get(SPLIT_COLUMN), "dtype", None) in ("string", "large_string"):
        wanted.append(SPLIT_COLUMN)
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


def _as_written(table: pa.Table, schema: pa.Schema, split: str, features: Mapping[str, Any], files: RowFiles) -> pa.Table:
    """The rows with their split, in the columns of the first split; a target that a split lacks is missing."""
    columns = []
    for field in schema:
        if field.name == SPLIT_COLUMN and SPLIT_COLUMN not in table.column_names:
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


def _with_bytes(column: pa.ChunkedArray, files: RowFiles) -> pa.ChunkedArray:
    rows = column.to_pylist()
    beside = [row for row in rows if row is not None and row["bytes"] is None and row["path"] is not None]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for row, content in zip(beside, pool.map(files.read, [row["path"] for row in beside]), strict=True):
            row["bytes"] = content
    return pa.chunked_array([pa.array(rows, column.type)])
