"""What is told of the builtin datasets is so."""

from typing import get_args

import numpy as np

from service.spec.architectures import ARCHITECTURES, Architecture
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.tasks import TASKS
from worker.data.builtin import BUILTIN_LOADERS
from worker.data.builtin.digits import load_digits
from worker.models.build import BUILDERS


def test_every_builtin_dataset_holds_what_is_told_of_it() -> None:
    assert BUILTIN_LOADERS.keys() == BUILTIN_DATASETS.keys()
    for name, load in BUILTIN_LOADERS.items():
        data, info = load(), BUILTIN_DATASETS[name].info
        kind = TASKS[info.task].input_kind
        assert {split: len(samples.inputs) for split, samples in data.splits.items()} == info.splits
        assert [column for column, told in info.columns.items() if told.kind == kind] == [kind]
        first, *_ = data.classes
        assert (info.classes, info.class_counts) == (data.classes[first], info.columns[first].class_counts)
        assert info.columns.keys() == {kind, *data.classes}
        for column, classes in data.classes.items():
            told = info.columns[column]
            assert (told.kind, told.classes, told.num_classes) == ("label", classes, len(classes or []))
            assert told.class_counts == {
                split: np.bincount(np.asarray(samples.targets[column]), minlength=len(classes or [])).tolist()
                for split, samples in data.splits.items()
            }


def test_the_digits_have_the_shape_and_type_that_is_told() -> None:
    inputs = load_digits().splits["train"].inputs
    assert isinstance(inputs, np.ndarray)
    _, channels, height, width = inputs.shape
    told = BUILTIN_DATASETS["digits"].info.columns["image"]
    assert (told.shape, told.dtype) == ([height, width, channels], str(inputs.dtype))


def test_architectures_pages_and_builders_have_the_same_names() -> None:
    assert ARCHITECTURES.keys() == BUILDERS.keys() | {"transformers"}
    union = get_args(get_args(Architecture)[0])
    assert {page.spec for page in ARCHITECTURES.values()} == set(union)
    for name, page in ARCHITECTURES.items():
        assert name in str(page.spec.model_json_schema())
