"""The same rows written in every format, by split and label."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.spec.tasks import TaskName
from tests.unit.formats.files import encoded, some_images, write_jsonl, write_npz, write_parquet
from tests.unit.test_archives import zipped

TEXT: TaskName = "text-classification"
Rows = Sequence[tuple[str, Any]]
Writer = Callable[[Path, Rows], Path]
"""Writes rows, each a split and a label, None where there is none."""
ABSENT = object()
"""The label of a row that lacks even the column."""


def npz(folder: Path, rows: Rows) -> Path:
    arrays: dict[str, Any] = {}
    for split in dict.fromkeys(split for split, _ in rows):
        labels = [label for of_split, label in rows if of_split == split]
        arrays[f"{split}_image"] = some_images(len(labels), 4, 4)
        if ABSENT not in labels:
            arrays[f"{split}_label"] = np.array([-1 if label is None else label for label in labels])
    return write_npz(folder / "a.npz", **arrays)


def parquet(folder: Path, rows: Rows) -> Path:
    columns: dict[str, Any] = {"text": [f"row {row}" for row in range(len(rows))], "split": [split for split, _ in rows]}
    if not any(label is ABSENT for _, label in rows):
        columns["label"] = pa.array([label for _, label in rows])
    return write_parquet(folder / "a.parquet", columns)


def jsonl(folder: Path, rows: Rows) -> Path:
    lines = [
        {"text": f"row {row}", "split": split} | ({} if label is ABSENT else {"label": label})
        for row, (split, label) in enumerate(rows)
    ]
    return write_jsonl(folder / "a.jsonl", lines)


def csv(folder: Path, rows: Rows) -> Path:
    has_labels = not any(label is ABSENT for _, label in rows)
    lines = ["text,split" + ",label" * has_labels]
    for row, (split, label) in enumerate(rows):
        lines.append(f"row {row},{split}" + f",{'' if label is None else label}" * has_labels)
    path = folder / "a.csv"
    path.write_text("\n".join(lines))
    return path


def folders(folder: Path, rows: Rows) -> Path:
    files = [
        (f"{split}/{row}.png" if label in (None, ABSENT) else f"{split}/{label}/{row}.png", encoded(some_images(4, 4, seed=row)))
        for row, (split, label) in enumerate(rows)
    ]
    path = folder / "a.zip"
    path.write_bytes(zipped(files))
    return path


WRITERS: dict[str, tuple[Writer, TaskName]] = {
    "npz": (npz, "image-classification"),
    "Parquet": (parquet, TEXT),
    "JSONL": (jsonl, TEXT),
    "CSV": (csv, TEXT),
    "folders": (folders, "image-classification"),
}
in_every_format = pytest.mark.parametrize(("write", "task"), WRITERS.values(), ids=WRITERS)
