"""Data files as folders of mapped shards in the cache of this host, made once: trainers and checks read nothing else.

What an entry was made of is in its key: the content, or for a file of this host what the file system tells of it, and the columns
that were read, and the version of this project, whose readers may differ. So a file that changes is converted anew.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.errors import InvalidFile
from service.formats import write_shards
from service.formats.shards.index import ShardIndex
from service.formats.shards.mapped import map_shards
from service.spec.data import DatasetSpec
from service.spec.tasks import TaskName
from worker.sources.cache import NetworkCache
from worker.sources.errors import InvalidData
from worker.sources.own_process import answer, call

_FORM = ShardIndex.model_fields["version"].default


@dataclass(frozen=True)
class DataFile:
    """What is read of a file."""

    filename: str
    """The name that its user gave it, by whose suffix some formats are told."""
    task: TaskName
    input_column: tuple[str, ...]
    """The input column; two where a row is a pair of texts."""
    target_columns: tuple[str, ...] = ()
    weight_column: str | None = None
    skip_broken: bool = False

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "DataFile":
        """Reads what ``asdict`` gave, from JSON."""
        columns = {name: tuple(fields[name]) for name in ("input_column", "target_columns")}
        return cls(**fields | columns)

    def key(self, content: str) -> str:
        """The key of its shards; ``content`` is equal for equal contents alone."""
        of_it = json.dumps([_FORM, version("stillhouse"), content, asdict(self)])
        return f"data:{hashlib.sha256(of_it.encode()).hexdigest()}"


def data_file(dataset: DatasetSpec, task: TaskName, filename: str, *, is_transfer: bool = False) -> DataFile:
    """What a job reads of its dataset, or of its transfer rows, which have no targets."""
    file = DataFile(filename, task, dataset.inputs, skip_broken=dataset.skip_broken)
    if is_transfer:
        return file
    return replace(file, target_columns=tuple(dataset.targets), weight_column=dataset.weight if dataset.targets else None)


def convert(file: DataFile, path: Path, folder: Path, *, on_poll: Callable[[], None] = lambda: None) -> None:
    """Writes the shards of a file into a folder, in a process of its own; what an earlier try left there is removed.

    ``on_poll``, called several times a second meanwhile, may end it by raising.

    Raises:
        InvalidFile: it cannot be read as such data.
        OSError: this host cannot, for instance as its disk is full.
    """
    request = {"path": str(path), "folder": str(folder), **asdict(file)}
    match call("worker.sources.data_files", request, on_poll=on_poll):
        case ["done"], _:
            pass
        case ["refused", detail], _:
            raise InvalidFile(detail)
        case ["machine", number, message], _:
            raise OSError(number, message)
        case ["failed", words], _:
            raise RuntimeError(f"{file.filename!r} could not be converted: {words}")
        case _, exit_code:
            raise RuntimeError(f"the conversion of {file.filename!r} ended with exit code {exit_code}")


@contextmanager
def hold_file(
    cache: NetworkCache,
    source: str,
    path: Path,
    file: DataFile,
    *,
    on_poll: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Yields the folder of the shards of a file of this host; ``source`` is its name in the spec. ``on_poll`` as above.

    Raises:
        InvalidData: it cannot be read, or changed meanwhile.
        OSError: this host has no room for it, for instance.
    """
    before = _state(path)

    def fetch(folder: Path) -> None:
        try:
            with telling(source):
                convert(file, path, folder, on_poll=on_poll)
        except (InvalidData, RuntimeError):
            if _state(path) == before:
                raise
        if _state(path) != before:
            raise InvalidData(f"{source} was changed while it was read.", "Submit the job again once it is written.")

    with cache.hold(file.key(f"{path} {before}"), fetch, num_bytes=before[0], on_wait=on_poll) as folder:
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


def write(file: DataFile, path: Path, folder: Path) -> None:
    """Does in this process what :func:`convert` does."""
    for left in folder.iterdir():
        left.unlink()
    write_shards(path, folder, **asdict(file))
    map_shards(folder)


def _convert(request: dict[str, Any]) -> list[Any]:
    path, folder = Path(request.pop("path")), Path(request.pop("folder"))
    try:
        write(DataFile(**request), path, folder)
    except InvalidFile as error:
        return ["refused", error.detail]
    except OSError as error:
        return ["machine", error.errno or 0, str(error.strerror or error)]
    except Exception as error:  # noqa: BLE001 - told by whoever waits for the answer
        return ["failed", f"{type(error).__name__}: {error}"]
    return ["done"]


if __name__ == "__main__":
    answer(_convert)
