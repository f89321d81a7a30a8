"""Whether samples are read into memory at once, or stay on disk: chosen by their size and by the memory that there is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from service.formats.shards.index import ARROW, INDEX_FILE, read_index, shard_path
from service.spec.tasks import TASKS, TaskName
from worker.data.errors import UnusableData
from worker.host_memory import free_host_bytes

_SHARE = 4
"""The part of the free memory that samples may take: networks and their tokens need the rest."""
_MOST_BYTES = 4 * 2**30
_IN_MEMORY = 8
"""A byte of text becomes about so many: the text itself, and a row of token ids that is as long as the longest one."""
_OF_WORDS = 48
"""The same of rows of words, each an object of its own with a label, measured with words of 5 characters, 5 to 40 in a row."""


class ReadChoice(NamedTuple):
    """Where samples are read from, and why."""

    source: Literal["memory", "shards"]
    reason: str

    def __str__(self) -> str:
        return f"{'into memory at once' if self.source == 'memory' else 'from shards as they are needed'}: {self.reason}"


BUILTIN = ReadChoice("memory", "builtin datasets are in memory")
"""Of data that leave no choice."""


def choose_reading(asked: Literal["auto", "memory", "shards"], folders: Sequence[Path | None], *, task: TaskName) -> ReadChoice:
    """Chooses for the data of a job; ``folders`` are the local files or folders of its sources, None for builtin ones.

    Raises:
        UnusableData: they cannot be read from shards, which was asked for.
    """
    if problem := _unmapped(folders):
        if asked == "shards":
            raise UnusableData(f"dataset.read is shards, and {problem}: leave it out")
        return ReadChoice("memory", problem)
    if asked == "memory":
        return ReadChoice("memory", "dataset.read says so")
    if asked == "shards":
        return ReadChoice("shards", "dataset.read says so")
    of_text = _OF_WORDS if TASKS[task].reads_words else _IN_MEMORY
    factor = of_text if TASKS[task].input_kind == "text" else 1
    needed = factor * sum(split.bytes for folder in folders if folder for split in read_index(folder).splits.values())
    free = free_host_bytes()
    allowed = _MOST_BYTES if free is None else min(_MOST_BYTES, free / _SHARE)
    told = f"they take about {needed / 2**20:,.0f} MiB there, and {allowed / 2**20:,.0f} MiB may be"
    return ReadChoice("memory" if needed <= allowed else "shards", told)


def _unmapped(folders: Sequence[Path | None]) -> str | None:
    """Why the data cannot stay on disk; None if they can."""
    for folder in folders:
        if folder is None:
            return BUILTIN.reason
        if not (folder / INDEX_FILE).is_file():
            return "the data are one file, no shards"
        shards = [name for split in read_index(folder).splits.values() for name in split.shards]
        if any(shard_path(folder, name).suffix != ARROW for name in shards):
            return "the shards were not unpacked on this host"
    return None
