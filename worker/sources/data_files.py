"""Data files as folders of mapped shards in the cache of this host, made once: trainers and checks read nothing else.

What an entry was made of is in its key: the content, or for a file of this host what the file system tells of it, and the columns
that were read. So a file that changes is converted anew.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidFile
from service.formats import write_shards
from service.formats.mapped_shards import map_shards
from service.formats.shard_index import ShardIndex
from service.spec import JobSpec
from service.spec.tasks import TaskName
from worker.sources.cache import NetworkCache
from worker.sources.errors import InvalidData

_VERSION = ShardIndex.model_fields["version"].default


@dataclass(frozen=True)
class DataFile:
    """What is read of a file."""

    filename: str
    """The name that its user gave it, by whose suffix some formats are told."""
    task: TaskName
    input_column: str
    target_columns: tuple[str, ...]

    def key(self, content: str) -> str:
        """The key of its shards; ``content`` is equal for equal contents alone."""
        columns = json.dumps([_VERSION, content, self.filename, self.task, self.input_column, self.target_columns])
        return f"data:{hashlib.sha256(columns.encode()).hexdigest()}"


def data_file(spec: JobSpec, filename: str, *, is_transfer: bool = False) -> DataFile:
    """What a job reads of its dataset, or of its transfer rows, which have no targets."""
    targets = () if is_transfer else tuple(spec.dataset.targets)
    return DataFile(filename, spec.task, spec.dataset.input, targets)


Convert = Callable[[DataFile, Path, Path], None]
"""Writes the shards of the file at a path into a folder. Raises InvalidFile, or OSError if it takes no file."""


def convert(file: DataFile, path: Path, folder: Path) -> None:
    """Writes the shards of a file into a folder, which loses what an earlier try left in it; see :data:`Convert`."""
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_shards(
        path,
        folder,
        filename=file.filename,
        task=file.task,
        input_column=file.input_column,
        target_columns=file.target_columns,
    )
    map_shards(folder)


@contextmanager
def hold_file(
    cache: NetworkCache,
    source: str,
    path: Path,
    file: DataFile,
    *,
    convert: Convert = convert,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Yields the folder of the shards of a file of this host; ``source`` is its name in the spec.

    Raises:
        InvalidData: it cannot be read, or changed meanwhile.
        OSError: this host has no room for it, for instance.
    """
    before = _state(path)

    def fetch(folder: Path) -> None:
        with telling(source):
            convert(file, path, folder)
        if _state(path) != before:
            raise InvalidData(f"{source} was changed while it was read.", "Submit the job again once it is written.")

    with cache.hold(file.key(f"{path} {before}"), fetch, num_bytes=before[0], on_wait=on_wait) as folder:
        yield folder


@contextmanager
def telling(source: str) -> Iterator[None]:
    """Raises InvalidData, with the source's name, for a file that cannot be read."""
    try:
        yield
    except InvalidFile as error:
        raise InvalidData(f"{source}: {error.detail}", "") from error


def _state(path: Path) -> tuple[int, ...]:
    """What of a file is another once it is written anew: its size first."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
