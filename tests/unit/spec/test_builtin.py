"""What is told of the builtin datasets is so."""

from typing import get_args

from service.spec.architectures import ARCHITECTURES, Architecture
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import INPUT_KINDS, DatasetSpec
from worker.data import load_data
from worker.models.build import BUILDERS


def test_every_builtin_dataset_holds_what_is_told_of_it() -> None:
    for name, described in BUILTIN_DATASETS.items():
        info = described.info
        spec = DatasetSpec(source=f"builtin:{name}", input=INPUT_KINDS[info.task])
        data = load_data(spec, None, task=info.task)
        assert {split: len(samples) for split, samples in data.splits.items()} == info.splits
        counts = {split: samples.labels.bincount(minlength=len(info.classes)).tolist() for split, samples in data.splits.items()}
        assert counts == info.class_counts
        assert data.targets.classes == info.classes
        if info.task == "image-classification":
            channels, height, width = data.splits["train"].inputs.shape[1:]
            assert info.columns["image"].shape == [height, width, channels]
        assert info.columns["label"].num_classes == len(info.classes)


def test_architectures_pages_and_builders_have_the_same_names() -> None:
    assert ARCHITECTURES.keys() == BUILDERS.keys()
    union = get_args(get_args(Architecture)[0])
    assert {page.spec for page in ARCHITECTURES.values()} == set(union)
    for name, page in ARCHITECTURES.items():
        assert name in str(page.spec.model_json_schema())
