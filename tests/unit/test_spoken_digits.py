"""The example that speaks: what it makes is sound, and the same each time."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from examples.spoken_digits import SPEAKERS, TEST_SPEAKERS, make, plan
from service.formats import Waveform, inspect_dataset, read_dataset

DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spoken") / "digits.zip"
    make(path, variations=3)
    return path


def test_it_is_a_dataset_with_every_digit_in_every_split(folders: Path) -> None:
    info = inspect_dataset(folders, filename=folders.name, task="audio-classification")
    assert (info.splits, info.classes) == ({"test": 10, "train": 10, "validation": 10}, DIGITS)
    assert info.class_counts == dict.fromkeys(info.splits, [1] * 10)
    column = info.columns["audio"]
    assert column.rates == [16_000]
    assert 0.3 < (column.longest_seconds or 0) < 1.2


def test_each_sample_is_a_word_that_can_be_heard_and_another_one_each_time(folders: Path) -> None:
    arrays = read_dataset(folders, task="audio-classification", target_columns=["label"])
    clips = [clip for split in arrays.splits.values() for clip in split.inputs]
    assert len({clip.samples.tobytes() for clip in clips if isinstance(clip, Waveform)}) == 30
    for clip in clips:
        assert isinstance(clip, Waveform)
        assert 0.19 < np.abs(clip.samples).max() < 0.91
        assert len(clip.samples) > 0.15 * clip.rate
        assert (np.abs(clip.samples) > 0.01).mean() > 0.25


def test_the_same_arguments_give_the_same_samples_as_folders_and_as_a_table(folders: Path, tmp_path: Path) -> None:
    table = tmp_path / "digits.parquet"
    make(table, variations=3)
    one, other = (read_dataset(path, task="audio-classification", target_columns=["label"]) for path in (folders, table))
    assert one.classes == other.classes
    for split in ("train", "validation", "test"):
        for ours, theirs in zip(one.splits[split].inputs, other.splits[split].inputs, strict=True):
            assert isinstance(ours, Waveform)
            assert isinstance(theirs, Waveform)
            np.testing.assert_array_equal(ours.samples, theirs.samples)


def test_who_speaks_in_the_test_split_speaks_in_no_other() -> None:
    spoken = list(plan(variations=40, seed=0))
    assert len(spoken) == 400
    speakers = {split: {each.voice.split("+")[1] for each in spoken if each.split == split} for split in ("train", "test")}
    assert speakers == {"train": set(SPEAKERS), "test": set(TEST_SPEAKERS)}


def test_the_names_in_the_zip_say_who_speaks(folders: Path) -> None:
    with zipfile.ZipFile(folders) as archive:
        names = archive.namelist()
    assert names == [each.path for each in plan(variations=3, seed=0)]
    assert names[0].startswith("train/0/00-en")


def test_too_few_variations_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        next(plan(variations=2, seed=0))
