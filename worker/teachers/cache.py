"""A cache of teachers' outputs on whole splits, in files, so that they are computed once for all jobs with the same key.

    CACHE/3f/3f9c…e1/outputs.json   the cache key, and each output's file, type, shape and SHA-256
    CACHE/3f/3f9c…e1/0.rows …       one output: a row of numbers for each sample, in the split's order, and nothing else

A folder's name is the SHA-256 of its cache key. Invariants: a folder under its final name is complete (it is written under
another name, synced and renamed, so that concurrent writers of one key do no harm); the files that are read have the SHA-256
that they were written with. Files are memory-mapped, so that outputs may be larger than memory. Folders do not refer to each
other, and the mtime of ``outputs.json`` is that of their last use: any folder may be removed at any time. N samples, B batch.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from worker.durable import sync
from worker.teachers.cache_key import CacheKey, key_of, tensor_bytes

_INDEX = "outputs.json"
_UNFINISHED = "writing-"
_ABANDONED_SECONDS = 86_400.0
"""A writer that has written nothing for this long is taken to have been killed."""
_MIN_FREE_FRACTION = 0.1
"""Of the disk: outputs that would leave less free are not cached."""

logger = logging.getLogger(__name__)


class DamagedOutputs(Exception):
    """The files differ from what was written."""


class TeacherCache:
    """A folder of outputs, by cache key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, cache_key: CacheKey) -> dict[str, Tensor] | None:
        """Memory-maps the outputs by name, (N, …) each; None if there are none, or if they are damaged, which removes them."""
        entry = self._entry(key_of(cache_key))
        if not entry.exists():
            return None
        try:
            found = _read_entry(entry, verify=True)
        except (DamagedOutputs, OSError) as error:
            logger.warning("The teacher's outputs in %s cannot be used and are computed again: %s", entry, error)
            _remove(entry)
            return None
        with suppress(OSError):  # a folder that may only be read
            os.utime(entry / _INDEX)
        return found

    @contextmanager
    def write(self, cache_key: CacheKey, *, num_samples: int) -> Iterator["OutputWriter"]:
        """Yields a writer that takes the outputs batch by batch; the end of the block makes them visible to every reader.

        Raises:
            OSError: the disk is full, or writing failed.
        """
        entry = self._entry(key_of(cache_key))
        entry.parent.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        unfinished = self._folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
        unfinished.mkdir()
        try:
            with OutputWriter(unfinished, num_samples) as writer:
                yield writer
                writer.finish(cache_key)
            sync(unfinished)
            try:
                unfinished.rename(entry)
            except OSError:
                if not (entry / _INDEX).exists():
                    raise
                # Another writer of the same key was faster.
            sync(entry.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def read_back(self, cache_key: CacheKey) -> dict[str, Tensor]:
        """Memory-maps what was just written, without verifying it. Raises OSError."""
        return _read_entry(self._entry(key_of(cache_key)), verify=False)

    def _entry(self, key: str) -> Path:
        return self._folder / key[:2] / key

    def _remove_abandoned(self) -> None:
        for folder in self._folder.glob(f"{_UNFINISHED}*"):
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            except OSError:
                continue  # finished, or removed by another process
            if time.time() - newest > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


class OutputWriter:
    """Writes the outputs of one key into a folder."""

    def __init__(self, folder: Path, num_samples: int) -> None:
        self._folder, self._num_samples = folder, num_samples
        self._files: dict[str, _OutputFile] = {}

    def add(self, pieces: Mapping[str, Tensor]) -> None:
        """Appends the next samples' outputs by name, (B, …) each; names and all sizes but B are those of the first call.

        Raises:
            OSError: the disk has no space for all N samples.
        """
        if not self._files:
            self._check_space(pieces)
            for number, (name, piece) in enumerate(pieces.items()):
                self._files[name] = _OutputFile(self._folder / f"{number}.rows", piece)
        for name, piece in pieces.items():
            self._files[name].add(piece)

    def finish(self, cache_key: CacheKey) -> None:
        """Writes the index, and syncs every file to disk."""
        outputs = {name: file.finish(self._num_samples) for name, file in self._files.items()}
        with (self._folder / _INDEX).open("w") as index:
            json.dump({"question": cache_key, "outputs": outputs}, index, indent=1)
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> "OutputWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def _check_space(self, pieces: Mapping[str, Tensor]) -> None:
        num_bytes = sum(piece[:1].nbytes for piece in pieces.values()) * self._num_samples
        disk = shutil.disk_usage(self._folder)
        if disk.free - num_bytes < disk.total * _MIN_FREE_FRACTION:
            raise OSError(f"{num_bytes / 2**20:,.0f} MiB would leave less than a tenth of {self._folder.parent}'s disk free")


class _OutputFile:
    """Writes one output to its file."""

    def __init__(self, path: Path, like: Tensor) -> None:
        self._path, self._shape, self._dtype = path, tuple(like.shape[1:]), str(like.dtype).removeprefix("torch.")
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self._num_rows = 0

    def add(self, piece: Tensor) -> None:
        if tuple(piece.shape[1:]) != self._shape or str(piece.dtype) != f"torch.{self._dtype}":
            raise ValueError(f"rows of {tuple(piece.shape[1:])} {piece.dtype} among those of {self._shape} {self._dtype}")
        data = tensor_bytes(piece)
        self._file.write(data)
        self._digest.update(data)
        self._num_rows += len(piece)

    def finish(self, num_samples: int) -> dict[str, Any]:
        if self._num_rows != num_samples:
            raise ValueError(f"{self._num_rows} rows of {num_samples}")
        self._file.flush()
        os.fsync(self._file.fileno())
        return {
            "file": self._path.name,
            "dtype": self._dtype,
            "shape": [num_samples, *self._shape],
            "sha256": self._digest.hexdigest(),
        }

    def close(self) -> None:
        self._file.close()


def _read_entry(folder: Path, *, verify: bool) -> dict[str, Tensor]:
    try:
        index = json.loads((folder / _INDEX).read_text())
        return {name: _memory_map(folder, entry, verify=verify) for name, entry in index["outputs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedOutputs(f"{_INDEX} is not what was written: {error!r}") from error


def _memory_map(folder: Path, entry: Mapping[str, Any], *, verify: bool) -> Tensor:
    path, shape, dtype = folder / entry["file"], tuple(entry["shape"]), np.dtype(entry["dtype"])
    if path.parent != folder:
        raise DamagedOutputs(f"{entry['file']!r} is not a file of this folder")
    expected = math.prod(shape) * dtype.itemsize
    try:
        if path.stat().st_size != expected:
            raise DamagedOutputs(f"{path.name} has {path.stat().st_size} bytes, not {expected}")
        with path.open("rb") as file:
            if verify and hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise DamagedOutputs(f"the content of {path.name} does not have the SHA-256 that it was written with")
    except FileNotFoundError as error:
        raise DamagedOutputs(f"{path.name} is missing") from error
    if expected == 0:
        return torch.from_numpy(np.empty(shape, dtype))
    # Copy-on-write: pages that are written to are copied first, and the file stays as it is.
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c", shape=shape))


def _remove(entry: Path) -> None:
    """Renames the folder before deleting it, so that no reader finds half of it."""
    doomed = entry.parent.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    try:
        entry.rename(doomed)
    except OSError:
        return  # another process was faster
    shutil.rmtree(doomed, ignore_errors=True)
