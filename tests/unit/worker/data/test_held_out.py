"""Which samples are held out."""

import hashlib

import numpy as np
import pytest

from worker.data.errors import UnusableData
from worker.data.held_out import hold_out, hold_out_labels


def test_every_sample_is_in_one_part_and_every_class_in_each() -> None:
    labels = np.random.default_rng(0).integers(0, 5, size=403)
    parts = hold_out(labels, validation_fraction=0.1, test_fraction=0.2, seed=0)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(403))
    for part, share in (("validation", 0.1), ("test", 0.2)):
        for label in range(5):
            assert abs((labels[parts[part]] == label).sum() - share * (labels == label).sum()) <= 0.5


def test_a_class_of_three_samples_gives_one_to_each_part() -> None:
    labels = np.array([0] * 3 + [1] * 100)
    parts = hold_out(labels, validation_fraction=0.45, test_fraction=0.5, seed=0)
    assert [(labels[parts[part]] == 0).sum() for part in ("train", "validation", "test")] == [1, 1, 1]


def test_the_same_seed_gives_the_same_parts_for_ever() -> None:
    parts = hold_out(np.arange(1000) % 7, validation_fraction=0.1, test_fraction=None, seed=3)
    assert hashlib.sha256(parts["validation"].astype("<i8").tobytes()).hexdigest()[:16] == "4b4d1c992817afad"


def test_another_seed_gives_other_parts() -> None:
    one, other = (hold_out(np.arange(100) % 2, validation_fraction=0.2, test_fraction=None, seed=seed) for seed in (0, 1))
    assert one["validation"].tolist() != other["validation"].tolist()


def test_global_generators_are_left_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    hold_out(np.arange(100) % 2, validation_fraction=0.2, test_fraction=0.2, seed=0)
    assert np.random.random() == expected


def test_a_class_with_too_few_samples_is_refused() -> None:
    with pytest.raises(UnusableData, match="class 1 has 2 samples to train on, and 3 are needed"):
        hold_out(np.array([0, 0, 0, 1, 1]), validation_fraction=0.1, test_fraction=0.1, seed=0)


def test_rows_with_several_labels_are_held_out_with_each_class_in_its_share() -> None:
    random = np.random.default_rng(0)
    labels = random.random((300, 5)) < [0.5, 0.3, 0.1, 0.02, 0.0]
    labels[:4, 4] = True
    parts = hold_out_labels(labels, validation_fraction=0.1, test_fraction=0.2, seed=0)
    counts = {name: labels[rows].sum(axis=0) for name, rows in parts.items()}

    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(300))
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 210, "test": 60, "validation": 30}
    for name, share in (("test", 0.2), ("validation", 0.1)):
        assert (counts[name] >= 1).all()
        assert np.abs(counts[name] - share * labels.sum(axis=0)).max() <= 1
    again = hold_out_labels(labels, validation_fraction=0.1, test_fraction=0.2, seed=0)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    other = hold_out_labels(labels, validation_fraction=0.1, test_fraction=0.2, seed=1)
    assert not np.array_equal(parts["test"], other["test"])


def test_two_rows_are_too_few_for_three_parts() -> None:
    with pytest.raises(UnusableData, match="2 rows are too few to be cut into train, test and validation"):
        hold_out_labels(np.ones((2, 3), dtype=np.bool_), validation_fraction=0.1, test_fraction=0.2, seed=0)
