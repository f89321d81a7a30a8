"""A column of weights beside the targets, in every format that has one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidFile
from service.formats import inspect_dataset, read_dataset
from service.formats.sample import first_samples
from service.formats.table import write_shards
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect
from tests.unit.formats.targets.test_targets import Writer, in_every_format, parquet

LABELS = [0, 1, 0, 1, 0, 1]


def refused(path: Path, *, task: TaskName = "text-classification", weight: str = "weight") -> str:
    with pytest.raises(InvalidFile) as found:
        inspect_dataset(path, filename=path.name, task=task, weight_column=weight)
    return found.value.detail


@in_every_format
@pytest.mark.parametrize("weights", [[0.5, 0.0, 2.0, 1.0, 1.0, 3e5], [1, 0, 7, 1, 2, 3]], ids=["floats", "integers"])
def test_weights_are_numbers_whatever_they_are_written_as(
    tmp_path: Path, write: Writer, task: TaskName, weights: list[float]
) -> None:
    path = write(tmp_path, {"label": LABELS, "weight": weights})
    arrays = read_dataset(path, task=task, target_columns=["label"], weight_column="weight")
    info = inspect(path, task=task, weight_column="weight")
    write_shards(path, tmp_path / "rows", filename=path.name, task=task, target_columns=["label"], weight_column="weight")
    stored = read_dataset(tmp_path / "rows", task=task, target_columns=["label"], weight_column="weight")
    (first, *_) = first_samples(path, filename=path.name, task=task, weight_column="weight", num_rows=1, columns=info.columns)

    np.testing.assert_array_equal(np.asarray(arrays.splits["train"].targets["weight"]), np.array(weights, dtype=np.float64))
    np.testing.assert_array_equal(stored.splits["train"].targets["weight"], arrays.splits["train"].targets["weight"])
    assert (info.columns["weight"].kind, info.columns["label"].classes) == ("weight", ["0", "1"])
    assert not [each for each in info.warnings if "weight" in each.message]
    assert (first.weight, first.targets) == (weights[0], {"label": "0"})


@in_every_format
@pytest.mark.parametrize("wrong", [-0.5, None, float("inf"), -1])
def test_what_is_no_weight_is_refused_with_its_row(tmp_path: Path, write: Writer, task: TaskName, wrong: Any) -> None:
    weights: list[Any] = [1, 1, wrong, 1, 1, 1] if wrong == -1 else [0.5, 1.5, wrong, 1.0, 1.0, 1.0]
    message = refused(write(tmp_path, {"label": LABELS, "weight": weights}), task=task)
    assert "row 2" in message
    assert "write 1 where there is none" in message


def test_names_are_no_weights(tmp_path: Path) -> None:
    assert "holds no numbers" in refused(parquet(tmp_path, {"label": LABELS, "weight": list("abcdef")}))


def test_a_weight_has_a_column_of_its_own_in_a_file_of_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"label": LABELS})
    assert "the file has no weight column 'weight'; its columns are 'text', 'label'" in refused(path)
    assert "is an input or a target, and the weight too" in refused(path, weight="label")
    assert "the rows of a causal-lm dataset have no weights" in refused(path, task="causal-lm")
