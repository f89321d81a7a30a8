"""Fields of a spec that have no effect, and what of a dataset takes no part."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.data import Column, DatasetInfo
from service.spec.effect import dataset_warnings, spec_warnings

CNN = {"name": "small-cnn"}
GPT2 = {"name": "transformers", "model_type": "gpt2"}
TOKENIZER = {"train": "bpe", "vocab_size": 300, "max_length": 16}
IMAGES: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": CNN},
    "student": {"architecture": CNN},
}
TEXTS: dict[str, Any] = {
    "task": "causal-lm",
    "dataset": {"source": "file:x.jsonl"},
    "teacher": {"architecture": GPT2, "tokenizer": TOKENIZER},
    "student": {"architecture": GPT2},
    "method": {"name": "forward-kl"},
}


def told(document: dict[str, Any]) -> list[str]:
    """The place of each warning, in a spec and in what is stored of it."""
    spec = parse_spec(document)
    found = spec_warnings(spec)
    assert spec_warnings(parse_spec(spec.model_dump(mode="json"))) == found
    assert {warning.code for warning in found} <= {"field_without_effect"}
    return [warning.message.partition(" has no effect: ")[0] for warning in found]


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({}, []),
        ({"dataset": {"source": "builtin:digits", "clip_seconds": 3.0}}, ["/dataset/clip_seconds"]),
        ({"dataset": {"source": "builtin:digits", "packing": "packed"}}, ["/dataset/packing"]),
        (
            {"dataset": {"source": "builtin:digits", "row_tokens": 8, "clip_seconds": 10.0}},
            ["/dataset/row_tokens"],
        ),
        ({"teacher": {"architecture": CNN, "weight": 2.0}}, ["/teacher/weight"]),
        ({"teacher": [{"architecture": CNN, "weight": 2.0}]}, ["/teacher/0/weight"]),
        (
            {"teacher": [{"architecture": CNN, "weight": 2.0}, {"architecture": {"name": "small-cnn", "width": 4}}]},
            [],
        ),
        ({"method": {"name": "teacher-free"}}, ["/teacher"]),
        ({"method": {"name": "soft-targets", "divergence": "mse", "temperature": 2.0}}, ["/method/temperature"]),
        ({"method": {"name": "soft-targets", "divergence": "kl", "temperature": 2.0}}, []),
        ({"method": {"name": "soft-targets", "divergence": "mse"}}, []),
    ],
)
def test_fields_that_images_do_not_read_are_told(changes: dict[str, Any], places: list[str]) -> None:
    assert told(IMAGES | changes) == places


@pytest.mark.parametrize(
    ("dataset", "method", "places"),
    [
        ({}, {"name": "forward-kl"}, []),
        ({"packing": "padded", "row_tokens": 16}, {"name": "forward-kl"}, []),
        ({"row_tokens": 17}, {"name": "forward-kl"}, ["/dataset/row_tokens"]),
        ({}, {"name": "sequence", "sampling_temperature": 0.5}, ["/method/sampling_temperature"]),
        ({}, {"name": "sequence", "decoding": "sampling", "num_beams": 2}, ["/method/num_beams"]),
        ({}, {"name": "sequence", "decoding": "sampling", "sampling_temperature": 0.5}, []),
        ({}, {"name": "on-policy", "prompt_tokens": 4}, []),
        ({"targets": ["answer"]}, {"name": "on-policy", "prompt_tokens": 4}, ["/method/prompt_tokens"]),
    ],
)
def test_fields_that_a_language_model_does_not_read_are_told(
    dataset: dict[str, Any], method: dict[str, Any], places: list[str]
) -> None:
    assert told(TEXTS | {"dataset": TEXTS["dataset"] | dataset, "method": method}) == places


def column(kind: Any) -> Column:
    return Column(kind=kind, dtype="int64")


@pytest.mark.parametrize(
    ("splits", "dataset", "messages"),
    [
        (["train"], {"validation_fraction": 0.3, "test_fraction": 0.3, "split_seed": 2}, []),
        (
            ["train", "val"],
            {"validation_fraction": 0.3, "test_fraction": 0.3, "split_seed": 2},
            ["/dataset/validation_fraction has no effect: the validation split is the dataset's own 'val'"],
        ),
        (["train", "test", "dev"], {"split_seed": 2}, ["/dataset/split_seed has no effect: the dataset has all splits"]),
        (["train", "test", "extra"], {}, ["split 'extra' of the dataset (5 rows) takes no part"]),
        (
            ["train", "test", "extra"],
            {"splits": {"train": "extra"}},
            ["split 'train', 'test' of the dataset (10 rows) takes no part"],
        ),
    ],
)
def test_what_of_a_dataset_takes_no_part_is_told(splits: list[str], dataset: dict[str, Any], messages: list[str]) -> None:
    info = DatasetInfo(
        task="image-classification",
        splits=dict.fromkeys(splits, 5),
        columns={"image": column("image"), "label": column("label"), "id": column("other")},
        classes=["a", "b"],
        class_counts={},
    )
    found = dataset_warnings(parse_spec(IMAGES | {"dataset": {"source": "dataset:x", **dataset}}), info)
    assert len(found) == len(messages)
    for warning, message in zip(found, messages, strict=True):
        assert message in warning.message


def test_a_target_that_the_spec_does_not_name_is_told() -> None:
    columns = {"image": column("image"), "label": column("label"), "kind": column("label"), "size": column("number")}
    info = DatasetInfo(task="image-classification", splits={"train": 9}, columns=columns, classes=[], class_counts={})
    (found,) = dataset_warnings(parse_spec(IMAGES | {"dataset": {"source": "dataset:x"}}), info)
    assert (found.code, found.message) == (
        "target_unused",
        "the dataset's target 'kind', 'size' takes no part: dataset.targets names 'label'",
    )
