"""The samples that a job trains on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from service.spec.architectures import SmallCnn
from service.spec.data import DatasetSpec, Splits
from tests.unit.formats.files import some_images, write_npz
from worker.data import Data, PixelPreprocessing, UnusableData, load_data
from worker.tasks import TASKS

DIGITS = DatasetSpec(source="builtin:digits")


def load(dataset: DatasetSpec, path: Path | None) -> Data:
    return load_data(dataset.model_copy(update={"input": "image"}), path, task=TASKS["image-classification"])


def measured(data: Data) -> PixelPreprocessing:
    preprocessing = TASKS[data.task].preprocessing(data, SmallCnn(name="small-cnn"))
    assert isinstance(preprocessing, PixelPreprocessing)
    return preprocessing


def test_the_digits_are_all_there_and_in_fixed_splits() -> None:
    data = load(DIGITS.model_copy(update={"split_seed": 7, "test_fraction": 0.5}), None)
    assert data.splits["train"].inputs.shape[1:] == (1, 8, 8)
    assert sum(len(split) for split in data.splits.values()) == 1797
    train = data.splits["train"]
    assert (train.inputs.dtype, train.inputs.max().item(), train.labels.dtype) == (torch.uint8, 16, torch.int64)
    assert torch.equal(train.inputs, load(DIGITS, None).splits["train"].inputs)


def test_preprocessing_normalises_the_training_split_and_is_measured_on_it_alone(tmp_path: Path) -> None:
    dark = some_images(40, 4, 6, 3) // 8
    bright = np.full((4, 4, 6, 3), 255, np.uint8)
    path = write_npz(
        tmp_path / "a.npz", train_image=dark, train_label=np.arange(40) % 2, test_image=bright, test_label=np.arange(4) % 2
    )
    data = load(DatasetSpec(source="dataset:a", validation_fraction=0.25), path)
    preprocessing = measured(data)
    normalised = preprocessing(data.splits["train"].inputs)
    assert normalised.shape == (30, 3, 4, 6)
    torch.testing.assert_close(normalised.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert preprocessing.rescale_factor == 1 / 255


def test_floating_point_images_stay_as_they_are_and_a_flat_channel_is_only_centred(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(1e6, 1.0, size=(20, 2, 5, 5)).astype(np.float32)
    images[:, 1] = 3.0
    path = write_npz(tmp_path / "a.npz", image=images, label=np.arange(20) % 2)
    preprocessing = measured(load(DatasetSpec(source="dataset:a"), path))
    assert preprocessing.rescale_factor == 1.0
    assert preprocessing.mean[1] == pytest.approx(3.0)
    assert preprocessing.std == pytest.approx((1.0, 1.0), rel=0.1)


def test_splits_may_be_named_and_what_is_missing_is_held_out(tmp_path: Path) -> None:
    labels = np.arange(20) % 2
    path = write_npz(
        tmp_path / "a.npz", a_image=some_images(20, 4, 4), a_label=labels, b_image=some_images(20, 4, 4, seed=1), b_label=labels
    )
    spec = DatasetSpec(source="dataset:a", splits=Splits(train="b", test="a"), validation_fraction=0.2)
    data = load(spec, path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 16, "validation": 4, "test": 20}
    np.testing.assert_array_equal(data.splits["test"].inputs[:, 0].numpy(), some_images(20, 4, 4))


@pytest.mark.parametrize(
    ("labelled", "counts"),
    [
        ({0: 14, 1: 14, 8: 2}, (1, 1)),
        ({0: 14, 1: 14, 7: 1, 8: 2}, (1, 1)),
        (dict.fromkeys(range(10), 1), (0, 0)),
    ],
    ids=["two of a class", "three of two classes", "one of each class"],
)
@pytest.mark.parametrize("unlabelled", [0, 100])
def test_classes_too_rare_for_every_part_are_held_out_with_the_unlabelled_rows(
    labelled: dict[int, int], counts: tuple[int, int], unlabelled: int, tmp_path: Path
) -> None:
    labels = np.concatenate([np.repeat(list(labelled), list(labelled.values())), np.full(unlabelled, -1)])
    path = write_npz(tmp_path / "a.npz", image=some_images(len(labels), 4, 4), label=labels)
    spec = DatasetSpec(source="dataset:a", input="image")
    with pytest.raises(UnusableData, match=r"class \d has \d samples to train on, and 3 are needed"):
        load(spec, path)
    splits = load_data(spec, path, task=TASKS["image-classification"], without_labels={"label"}).splits
    assert sum(len(split) for split in splits.values()) == len(labels)
    together = torch.cat([split.labels for split in splits.values()])
    assert sorted(together.tolist()) == sorted(labels.tolist())
    for split, least in ((splits["validation"], counts[0]), (splits["test"], counts[1])):
        assert all(int((split.labels == label).sum()) >= least for label in (0, 1))  # as ever, a share of each


def test_weights_are_of_the_training_split_and_1_on_average_beside_transfer_rows(tmp_path: Path) -> None:
    labels, weights = np.arange(40) % 2, np.arange(40.0)
    path = write_npz(tmp_path / "a.npz", image=some_images(40, 4, 4), label=labels, trust=weights)
    more = write_npz(tmp_path / "b.npz", image=some_images(5, 4, 4, seed=1))
    spec = DatasetSpec(source="dataset:a", weight="trust", transfer="dataset:b")
    data = load_data(spec, path, task=TASKS["image-classification"], transfer=more)
    train = data.splits["train"]
    assert train.weights is not None
    assert train.own.weights is not None
    rows = [train.place_of(index).rows[0] for index in range(len(train.own))]

    assert train.own.weights.mean().item() == pytest.approx(1.0)
    np.testing.assert_allclose(train.own.weights.numpy(), weights[rows] / weights[rows].mean(), rtol=1e-6)
    assert train.weights[-5:].tolist() == [1.0] * 5
    assert all(data.splits[name].weights is None for name in ("validation", "test"))


def test_weights_of_0_alone_teach_nothing(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", image=some_images(20, 4, 4), label=np.arange(20) % 2, trust=np.zeros(20))
    with pytest.raises(UnusableData, match="all weights of the training split are 0 in column 'trust'"):
        load(DatasetSpec(source="dataset:a", weight="trust"), path)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", a_image=some_images(6, 4, 4), a_label=np.arange(6) % 2)
    with pytest.raises(UnusableData, match="no split 'train' to be the train split; it has 'a'"):
        load(DatasetSpec(source="dataset:a"), path)


def test_a_broken_file_is_refused_with_the_source_that_the_spec_names(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(UnusableData, match="dataset:a: the npz is broken"):
        load(DatasetSpec(source="dataset:a"), tmp_path / "a.npz")


def test_loading_draws_nothing_from_the_global_generators(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(DIGITS, None)
    assert torch.equal(torch.get_rng_state(), before)


def written(path: Path, splits: dict[str, int], *, between: str = "\n", **others: str) -> Path:
    """Texts of two classes, so many in each split."""
    names = [name for name, count in splits.items() for _ in range(count)]
    rows = [{"text": f"{path.stem} {at}", "label": "ab"[at % 2], "split": name} | others for at, name in enumerate(names)]
    path.write_text(between.join(json.dumps(row) for row in rows))
    return path


TRANSFER = DatasetSpec(source="file:main", input="text", transfer="file:more", transfer_fraction=0.5)


def test_what_of_the_transfer_rows_file_takes_no_part_is_told(tmp_path: Path) -> None:
    main = written(tmp_path / "main.jsonl", {"train": 12})
    more = written(tmp_path / "more.jsonl", {"train": 10, "test": 10, "extra": 10}, between="\n\n", source="web")
    data = load_data(TRANSFER, main, task=TASKS["text-classification"], transfer=more)
    assert {warning.code: warning.message for warning in data.warnings} == {
        "split_unused": "split 'extra', 'test' of dataset.transfer, file:more (20 rows), takes no part: the transfer rows are "
        "those of 'train'",
        "blank_lines": "dataset.transfer, file:more: 29 blank lines are left out (the first: line 2)",
        "column_unused": "dataset.transfer, file:more: column 'label', 'source' takes no part: the input is 'text', and there "
        "are no targets",
    }
    alone = load_data(TRANSFER, main, task=TASKS["text-classification"], transfer=written(tmp_path / "other.jsonl", {"train": 5}))
    assert [warning.code for warning in alone.warnings] == ["column_unused"]
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "one"}\n{"text": "two"}')
    assert load_data(TRANSFER, main, task=TASKS["text-classification"], transfer=bare).warnings == ()


def test_a_builtin_datasets_rows_are_told_apart_from_the_transfer_rows(tmp_path: Path) -> None:
    more = written(tmp_path / "more.jsonl", {"train": 5})
    spec = DatasetSpec(source="builtin:languages", input="text", targets=["label"], transfer="file:more", transfer_fraction=0.5)
    train = load_data(spec, None, task=TASKS["text-classification"], transfer=more).splits["train"]
    assert train.place(0) == "train split, row 0"
    assert train.place(len(train.own) + 2) == "train split, row 2 (line 3) of file:more"
