"""Dataset files to read: small ones, written the way that users write them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidFile
from service.formats import DataArrays, SplitArrays, inspect_dataset, read_dataset
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
    path: Path, *, task: TaskName = "image-classification", input_column: str | None = None, targets: Sequence[str] | None = None
) -> DataArrays:
    """Its arrays, by the name that it has; without ``targets`` with those of the task."""
    chosen = TASKS[task].targets if targets is None else targets
    return read_dataset(path, filename=path.name, task=task, input_column=input_column, target_columns=chosen)


def inspect(path: Path, *, task: TaskName = "image-classification", **options: Any) -> DatasetInfo:
    """What is told of it, by the name that it has."""
    return inspect_dataset(path, filename=path.name, task=task, **options)


def refusal(
    path: Path, *, task: TaskName = "image-classification", input_column: str | None = None, targets: Sequence[str] | None = None
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
