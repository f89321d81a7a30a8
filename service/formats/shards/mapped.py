"""Shards as a host keeps them: each Parquet file as an Arrow file of the same rows, which is mapped into memory and not read.

A row of it costs no decompression, wherever it lies. Invariant: an Arrow file is whole once it has its name, also after a loss of
power.
"""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InvalidFile
from service.formats.shards.index import ARROW, read_index

_PARTIAL = ".partial"


def map_shards(folder: Path) -> None:
    """Converts all shards of a folder that are still Parquet files."""
    for split in read_index(folder).splits.values():
        for name in split.shards:
            if (folder / name).exists():
                map_shard(folder / name)


def map_shard(path: Path) -> None:
    """Converts one Parquet file, which is removed then. Raises InvalidFile if it is damaged."""
    mapped = path.with_suffix(ARROW)
    partial = mapped.with_name(mapped.name + _PARTIAL)
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file, pa.ipc.new_file(str(partial), file.schema_arrow) as writer:
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group, use_threads=False).combine_chunks())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidFile(f"shard {path.name} is damaged: {str(error)[:200]}") from error
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(mapped)
    path.unlink()
