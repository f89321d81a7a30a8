"""Files of words and their tags, and a task that reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.spec.tasks import TASKS, TaskInfo, TaskName
from tests.unit.formats.files import write_jsonl, write_parquet

TASK: TaskName = "text-classification"
"""The name under which the task of these tests stands in the table."""
OF_WORDS = TaskInfo(
    input_kind="text",
    network="token classifier",
    auto_class="AutoModelForTokenClassification",
    columns=("tokens", "text"),
    targets=("tags",),
    target_kinds=("tags", "spans"),
    only_target="the tags of its words",
)
FORMATS = ["Parquet", "JSONL"]
in_both_formats = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture
def task_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a task that reads words."""
    monkeypatch.setitem(TASKS, TASK, OF_WORDS)


def write(folder: Path, format: str, rows: Sequence[dict[str, Any]]) -> Path:
    """A file of those rows."""
    if format == "JSONL":
        return write_jsonl(folder / "a.jsonl", rows)
    return write_parquet(folder / "a.parquet", pa.Table.from_pylist(list(rows)))
