"""What is told of the builtin datasets is so."""

from typing import get_args

from service.spec.architectures import ARCHITECTURES, Architecture
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetSpec
from worker.data import load_images
from worker.models.build import BUILDERS


def test_every_builtin_dataset_holds_what_is_told_of_it() -> None:
    for name, described in BUILTIN_DATASETS.items():
        data = load_images(DatasetSpec(source=f"builtin:{name}"), None)
        info = described.info
        assert {split: len(samples) for split, samples in data.splits.items()} == info.splits
        counts = {split: samples.labels.bincount(minlength=len(info.classes)).tolist() for split, samples in data.splits.items()}
        assert counts == info.class_counts
        assert data.classes == info.classes
        channels, height, width = data.input_shape
        assert info.columns["image"].shape == [height, width, channels]
        assert info.columns["label"].num_classes == len(info.classes)


def test_architectures_pages_and_builders_have_the_same_names() -> None:
    assert ARCHITECTURES.keys() == BUILDERS.keys()
    union = get_args(get_args(Architecture)[0])
    assert {page.spec for page in ARCHITECTURES.values()} == set(union)
    for name, page in ARCHITECTURES.items():
        assert name in str(page.spec.model_json_schema())
