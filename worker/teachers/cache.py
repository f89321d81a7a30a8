"""What a teacher says to every sample of a split, kept in files, so that it is computed once for all jobs that ask the same.

    CACHE/3f/3f9c…e1/outputs.json   what was asked, and each output's file, type, shape and SHA-256
    CACHE/3f/3f9c…e1/0.rows …       one output: a row of numbers for each sample, in the split's order, and nothing else

A folder's name is the SHA-256 of its question. Invariants: a folder under its name is whole (it is written under another name,
synced and renamed, so that two who write the same do no harm); what is read has the SHA-256 that it was written with. Files are
mapped, so that outputs may be larger than memory. Folders do not refer to each other, and ``outputs.json`` is as young as their
last use: any of them may be removed at any time. N samples, B batch.
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

from worker.teachers.cache_key import CacheKey, key_of, tensor_bytes

_INDEX = "outputs.json"
_UNFINISHED = "writing-"
_ABANDONED_SECONDS = 86_400.0
"""A writer that has written nothing for so long was killed."""
_LEAST_FREE_SHARE = 0.1
"""Of the disk: what would leave less is not kept."""

logger = logging.getLogger(__name__)


class DamagedOutputs(Exception):
    """The files are not what was written."""


class TeacherCache:
    """A folder of answers, by key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, cache_key: CacheKey) -> dict[str, Tensor] | None:
        """The outputs by name, (N, …) each, mapped from their files; None where there are none that can be used."""
        place = self._place(key_of(cache_key))
        if not place.exists():
            return None
        try:
            found = _map(place, verify=True)
        except (DamagedOutputs, OSError) as error:
            logger.warning("The teacher's outputs in %s cannot be used and are computed again: %s", place, error)
            _remove(place)
            return None
        with suppress(OSError):  # a folder that may only be read
            os.utime(place / _INDEX)
        return found

    @contextmanager
    def write(self, cache_key: CacheKey, *, num_samples: int) -> Iterator["Rows"]:
        """Takes the outputs batch by batch; at the end of the block they are there for everybody.

        Raises:
            OSError: the disk is full, or will not do.
        """
        place = self._place(key_of(cache_key))
        place.parent.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        unfinished = self._folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
        unfinished.mkdir()
        try:
            with Rows(unfinished, num_samples) as rows:
                yield rows
                rows.finish(cache_key)
            _sync(unfinished)
            try:
                unfinished.rename(place)
            except OSError:
                if not (place / _INDEX).exists():
                    raise
                # Another was faster, to the same outputs.
            _sync(place.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def read_back(self, cache_key: CacheKey) -> dict[str, Tensor]:
        """What was just written, not read through once more. Raises OSError."""
        return _map(self._place(key_of(cache_key)), verify=False)

    def _place(self, key: str) -> Path:
        return self._folder / key[:2] / key

    def _remove_abandoned(self) -> None:
        for folder in self._folder.glob(f"{_UNFINISHED}*"):
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            except OSError:
                continue  # it was finished, or removed by another
            if time.time() - newest > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


class Rows:
    """Outputs on their way to a folder."""

    def __init__(self, folder: Path, num_samples: int) -> None:
        self._folder, self._num_samples = folder, num_samples
        self._files: dict[str, _File] = {}

    def add(self, pieces: Mapping[str, Tensor]) -> None:
        """The next samples' outputs by name, (B, …) each; the names and all sizes but the first are those of the first call.

        Raises:
            OSError: the disk has no place for all of them.
        """
        if not self._files:
            self._look_for_space(pieces)
            for number, (name, piece) in enumerate(pieces.items()):
                self._files[name] = _File(self._folder / f"{number}.rows", piece)
        for name, piece in pieces.items():
            self._files[name].add(piece)

    def finish(self, cache_key: CacheKey) -> None:
        """Writes down what there is, all of it synced to disk."""
        outputs = {name: file.finish(self._num_samples) for name, file in self._files.items()}
        with (self._folder / _INDEX).open("w") as index:
            json.dump({"question": cache_key, "outputs": outputs}, index, indent=1)
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def _look_for_space(self, pieces: Mapping[str, Tensor]) -> None:
        num_bytes = sum(piece[:1].nbytes for piece in pieces.values()) * self._num_samples
        disk = shutil.disk_usage(self._folder)
        if disk.free - num_bytes < disk.total * _LEAST_FREE_SHARE:
            raise OSError(f"{num_bytes / 2**20:,.0f} MiB would leave less than a tenth of {self._folder.parent}'s disk free")


class _File:
    """One output on its way to disk."""

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


def _map(place: Path, *, verify: bool) -> dict[str, Tensor]:
    try:
        index = json.loads((place / _INDEX).read_text())
        return {name: _mapped(place, of, verify=verify) for name, of in index["outputs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedOutputs(f"{_INDEX} is not what was written: {error!r}") from error


def _mapped(place: Path, described: Mapping[str, Any], *, verify: bool) -> Tensor:
    path, shape, dtype = place / described["file"], tuple(described["shape"]), np.dtype(described["dtype"])
    if path.parent != place:
        raise DamagedOutputs(f"{described['file']!r} is no file of this folder")
    expected = math.prod(shape) * dtype.itemsize
    try:
        if path.stat().st_size != expected:
            raise DamagedOutputs(f"{path.name} has {path.stat().st_size} bytes, not {expected}")
        with path.open("rb") as file:
            if verify and hashlib.file_digest(file, "sha256").hexdigest() != described["sha256"]:
                raise DamagedOutputs(f"the content of {path.name} does not have the SHA-256 that it was written with")
    except FileNotFoundError as error:
        raise DamagedOutputs(f"{path.name} is missing") from error
    if expected == 0:
        return torch.from_numpy(np.empty(shape, dtype))
    # Pages that somebody wrote to would be copied first: the file stays as it is.
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c", shape=shape))


def _remove(place: Path) -> None:
    """Out of everybody's way first, so that no reader finds half of it."""
    away = place.parent.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    try:
        place.rename(away)
    except OSError:
        return  # another was faster
    shutil.rmtree(away, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
