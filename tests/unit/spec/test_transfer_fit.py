"""What transfer rows must have in common with the dataset, and where the correction of the bias has a meaning."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import Column, DatasetInfo
from service.spec.fit import check_fit

DIGITS = BUILTIN_DATASETS["digits"].info


def images(*, shape: tuple[int, ...] = (8, 8, 1), dtype: str = "uint8", splits: dict[str, int] | None = None) -> DatasetInfo:
    """Images without a target."""
    columns = {"image": Column(kind="image", dtype=dtype, shape=list(shape))}
    return DatasetInfo(task="image-classification", splits=splits or {"train": 9}, columns=columns, classes=[])


def document(**dataset: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits", "transfer": "dataset:ds_1", **dataset},
        "teacher": {"architecture": {"name": "small-cnn", "width": 64}},
        "student": {"architecture": {"name": "small-cnn", "width": 8}},
    }


def faults(spec: dict[str, Any], transfer: DatasetInfo, dataset: DatasetInfo = DIGITS) -> dict[str, str]:
    found = check_fit(parse_spec(spec), dataset, teachers={}, transfer=transfer)
    return {fault.pointer: fault.message for fault in found}


def test_half_of_each_batch_is_transfer_rows_unless_the_spec_says_otherwise() -> None:
    assert parse_spec(document()).dataset.transfer_fraction == 0.5
    assert parse_spec(document(transfer_fraction=0.1)).dataset.transfer_fraction == 0.1
    stored = parse_spec(document()).model_dump(mode="json")
    assert parse_spec(stored).model_dump(mode="json") == stored


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"transfer": None, "transfer_fraction": 0.5}, "give transfer, or leave it out"),
        ({"transfer_fraction": 0.0}, "greater than 0"),
        ({"transfer_fraction": 1.0}, "less than 1"),
        ({"transfer": "builtin:digits"}, "the very source"),
        ({"transfer": "job:x"}, "is not a source"),
    ],
)
def test_a_transfer_that_makes_no_sense_is_refused(dataset: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document(**dataset))
    assert words in str([(fault.pointer, fault.message) for fault in caught.value.faults])


def test_images_of_the_same_form_fit() -> None:
    assert faults(document(), images()) == {}
    assert faults(document(), images(splits={"all": 5})) == {}


@pytest.mark.parametrize(
    ("transfer", "words"),
    [
        (images(shape=(9, 8, 1)), "9x8x1 (uint8), the dataset's 8x8x1 (uint8)"),
        (images(dtype="float32"), "store both in the same form"),
        (images(splits={"a": 1, "b": 2}), "call one 'train'"),
        (images(splits={"train": 0, "b": 2}), "has no rows"),
        (
            DatasetInfo(
                task="text-classification", splits={"train": 4}, columns={"text": Column(kind="text", dtype="string")}, classes=[]
            ),
            "no image column 'image'",
        ),
    ],
)
def test_rows_that_the_networks_could_not_read_beside_the_dataset_are_refused(transfer: DatasetInfo, words: str) -> None:
    found = faults(document(), transfer)
    assert found.keys() == {"/dataset/transfer"}
    assert words in found["/dataset/transfer"]


def test_a_batch_of_one_has_no_room_for_a_transfer_row() -> None:
    found = faults(document() | {"training": {"batch_size": 1}}, images())
    assert "2 or more" in found["/training/batch_size"]


def test_a_language_model_needs_no_transfer_rows() -> None:
    spec: dict[str, Any] = {
        "task": "causal-lm",
        "dataset": {"source": "dataset:ds_2", "transfer": "dataset:ds_1"},
        "teacher": {"source": "hub:some/teacher"},
        "student": {"architecture": {"name": "transformers", "model_type": "gpt2", "config": {"n_embd": 8, "n_head": 2}}},
        "method": {"name": "forward-kl"},
    }
    texts = DatasetInfo(task="causal-lm", splits={"train": 40}, columns={"text": Column(kind="text", dtype="string")}, classes=[])
    assert "put all texts into one dataset" in faults(spec, texts, texts)["/dataset/transfer"]


def test_a_bias_is_corrected_where_there_are_classes() -> None:
    spec = document() | {"evaluation": {"correct_bias": True}}
    assert faults(spec, images()) == {}
    numbers = DIGITS.model_copy(update={"columns": DIGITS.columns | {"label": Column(kind="number", dtype="float64")}})
    assert "no classes" in faults(spec, images(), numbers)["/evaluation/correct_bias"]
