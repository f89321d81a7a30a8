"""Dataset files to read: small ones, written the way that users write them."""

import io
import json
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidFile
from service.formats import DataArrays, SplitArrays, inspect_dataset, read_dataset, write_shards
from service.spec.data import DatasetInfo
from service.spec.tasks import TASKS, TaskName


def some_images(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of that shape."""
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def write_npz(path: Path, *, compressed: bool = False, **arrays: Any) -> Path:
    """An npz of those arrays."""
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def write_parquet(path: Path, columns: dict[str, Any] | pa.Table, **options: Any) -> Path:
    """A Parquet file of those columns."""
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    """Those rows, each as JSON on a line; a string is a line as it stands."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogatepass")
    return path


def encoded(image: NDArray[np.uint8], *, format: str = "PNG") -> bytes:
    """A PNG or JPEG of one image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=format)
    return buffer.getvalue()


def read(
    path: Path,
    *,
    task: TaskName = "image-classification",
    input_column: str | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    skip_broken: bool = False,
) -> DataArrays:
    """Its arrays, by the name that it has; without ``targets`` with those of the task. Its shards have the same."""
    columns: Any = {
        "task": task,
        "input_column": input_column,
        "target_columns": TASKS[task].targets if targets is None else targets,
        "skip_broken": skip_broken,
    }
    arrays = read_dataset(path, filename=path.name, **columns)
    with TemporaryDirectory() as shards:
        write_shards(path, Path(shards), filename=path.name, **columns)
        assert_same(read_dataset(Path(shards), **columns), arrays)
    return arrays


def inspect(path: Path, *, task: TaskName = "image-classification", **options: Any) -> DatasetInfo:
    """What is told of it, by the name that it has, and of its shards."""
    with TemporaryDirectory() as shards:
        info = inspect_dataset(path, filename=path.name, task=task, **options, shards=Path(shards))
        assert inspect_dataset(Path(shards), filename="", task=task, **options) == info
    return info


def assert_same(found: DataArrays, expected: DataArrays) -> None:
    """Both hold the same values of the same types, row by row."""
    assert list(found.splits) == list(expected.splits)
    assert (found.classes, found.warnings) == (expected.classes, expected.warnings)
    for name, split in expected.splits.items():
        assert_equal(found.splits[name].inputs, split.inputs)
        assert_equal(found.splits[name].targets, split.targets)
        assert_equal(found.splits[name].places, split.places)


def assert_equal(found: object, expected: object) -> None:
    """Compares whatever arrays are held by."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        assert_equal(list(found.values()), list(expected.values()))
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif is_dataclass(expected):
        assert_equal(vars(found), vars(expected))
    else:
        assert found == expected


def refusal(
    path: Path,
    *,
    task: TaskName = "image-classification",
    input_column: str | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
) -> str:
    """The words with which both inspecting and reading the file are refused."""
    with pytest.raises(InvalidFile) as inspected:
        inspect(path, task=task, input_column=input_column, target_columns=targets)
    with pytest.raises(InvalidFile) as read_whole:
        read(path, task=task, input_column=input_column, targets=targets)
    assert inspected.value.detail == read_whole.value.detail
    return inspected.value.detail


def pixels(split: SplitArrays) -> NDArray[np.generic]:
    """Its images (N, C, H, W)."""
    assert isinstance(split.inputs, np.ndarray)
    return split.inputs


def target(split: SplitArrays, column: str = "label") -> list[Any]:
    """The values of a target."""
    return list(np.asarray(split.targets[column]).tolist())
