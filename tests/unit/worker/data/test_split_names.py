"""Files whose splits are named in other ways than train, validation and test, loaded for a job whose spec names none."""

from pathlib import Path

import pytest

from service.spec.data import DatasetInfo, DatasetSpec, Splits
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect
from tests.unit.formats.rows import Writer, in_every_format
from worker.data import load_data
from worker.tasks import TASKS

LABELS = [0, 1] * 6


def spec(path: Path, task: TaskName, splits: Splits | None = None) -> DatasetSpec:
    column = "text" if task == "text-classification" else "image"
    return DatasetSpec(source=f"file:{path}", input=column, splits=splits)


def unused(info: DatasetInfo) -> list[str]:
    return [warning.message for warning in info.warnings if warning.code == "split_unused"]


@in_every_format
@pytest.mark.parametrize("name", ["val", "valid", "dev", "VALIDATION"])
def test_a_validation_split_by_any_of_its_names_is_validated_on(tmp_path: Path, write: Writer, task: TaskName, name: str) -> None:
    path = write(tmp_path, [("train", label) for label in LABELS] + [(name, label) for label in LABELS[:4]])
    data = load_data(spec(path, task), path, task=TASKS[task])
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 10, "validation": 4, "test": 2}
    assert unused(inspect(path, task=task)) == []


@in_every_format
def test_of_two_splits_for_one_part_it_is_told_which_takes_none(tmp_path: Path, write: Writer, task: TaskName) -> None:
    rows = [(split, label) for split in ("train", "val", "dev", "eval", "test") for label in LABELS[:4]]
    path = write(tmp_path, rows)
    data = load_data(spec(path, task), path, task=TASKS[task])
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 4, "validation": 4, "test": 4}
    (message,) = unused(inspect(path, task=task))
    assert message == (
        "split 'dev', 'eval' (8 rows) takes no part unless the spec's dataset.splits names it; by default train is 'train', "
        "validation is 'val', test is 'test'"
    )


@in_every_format
def test_a_split_takes_the_part_that_the_spec_names_it_for(tmp_path: Path, write: Writer, task: TaskName) -> None:
    path = write(tmp_path, [(split, label) for split in ("train", "val", "eval") for label in LABELS[:4]])
    data = load_data(spec(path, task, Splits(validation="eval", test="val")), path, task=TASKS[task])
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 4, "validation": 4, "test": 4}
