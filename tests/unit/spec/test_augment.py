"""What ``training.augment`` may hold, and what fits a task."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from service.spec.augment import AUGMENTATIONS, MIXTURES, Augment, AugmentationName, AugmentationSpec
from service.spec.augment_fit import READABLE, augmentation_faults
from worker.data.augment import MIXTURES as MIXING
from worker.data.augment import OPERATIONS

AUGMENT: TypeAdapter[list[AugmentationSpec]] = TypeAdapter(Augment)


def faults(*augment: Any, task: str = "image-classification", shape: tuple[int, int, int] | None = (3, 32, 24)) -> dict[str, str]:
    """Messages by pointer."""
    found = augmentation_faults(AUGMENT.validate_python(list(augment)), task=task, image_shape=shape, pointer="/training/augment")
    return {fault.pointer: fault.message for fault in found}


def test_pages_operations_and_spec_have_the_same_names() -> None:
    names = set(get_args(AugmentationName))
    assert AUGMENTATIONS.keys() == names == OPERATIONS.keys() | MIXING.keys()
    assert MIXING.keys() == set(MIXTURES)
    union = get_args(get_args(AugmentationSpec)[0])
    assert {page.spec for page in AUGMENTATIONS.values()} == set(union)
    for name, page in AUGMENTATIONS.items():
        assert get_args(page.spec.model_fields["name"].annotation) == (name,)
        assert page.modalities


def test_a_bare_name_is_short_for_its_defaults_and_is_stored_in_full() -> None:
    read = AUGMENT.validate_python(["crop", {"name": "flip", "probability": 1}])
    assert AUGMENT.dump_python(read) == [
        {"name": "crop", "padding": 4, "mode": "zero"},
        {"name": "flip", "probability": 1.0},
    ]
    assert AUGMENT.validate_python(AUGMENT.dump_python(read)) == read


@pytest.mark.parametrize("name", get_args(AugmentationName))
def test_every_augmentation_stands_by_its_bare_name(name: AugmentationName) -> None:
    assert AUGMENT.validate_python([name]) == [AUGMENTATIONS[name].spec.model_validate({"name": name})]


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (["corp"], "'crop', 'flip'"),
        ([{"padding": 4}], "discriminator 'name'"),
        ([{"name": "crop", "padding": 0}], "greater than or equal to 1"),
        ([{"name": "flip", "probability": 1.5}], "less than or equal to 1"),
        ([{"name": "gain", "min_db": 3.0, "max_db": 1.0}], "min_db 3.0 is above max_db 1.0"),
        ([{"name": "noise", "min_snr_db": 50}], "min_snr_db 50.0 is above max_snr_db 40.0"),
        (["mixup", "crop", "cutmix"], "mixup and cutmix each share the label"),
        ("crop", "valid list"),
    ],
)
def test_what_cannot_be_meant_is_refused(augment: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AUGMENT.validate_python(augment)


def test_the_schema_tells_of_both_ways_to_write_one() -> None:
    either = AUGMENT.json_schema()["items"]["anyOf"]
    assert set(either[0]["enum"]) == AUGMENTATIONS.keys()
    assert either[1]["discriminator"]["mapping"].keys() == AUGMENTATIONS.keys()


def test_every_augmentation_fits_a_task() -> None:
    for name, page in AUGMENTATIONS.items():
        tasks = [task for task, readable in READABLE.items() if set(readable) & set(page.modalities)]
        assert tasks
        assert all(faults(name, task=task, shape=None) == {} for task in tasks)


def test_what_does_not_fit_a_task_is_named_with_what_does() -> None:
    found = faults("crop", "specaugment", "token-dropout")
    assert found.keys() == {"/training/augment/1", "/training/augment/2"}
    assert (
        "specaugment is for log-mel inputs, which image-classification does not read; use one of crop,"
        in found["/training/augment/1"]
    )
    assert "use one of token-dropout" in faults("crop", task="text-classification", shape=None)["/training/augment/0"]


def test_nothing_fits_a_causal_language_model() -> None:
    assert "leave augment empty" in faults("token-dropout", task="causal-lm", shape=None)["/training/augment/0"]


@pytest.mark.parametrize(
    ("augmentation", "pointer", "words"),
    [
        ({"name": "crop", "padding": 24}, "padding", "a frame of 24 pixels can leave nothing to see of images of 32x24: use 23"),
        ({"name": "cutout", "size": 32}, "size", "a square of 32 pixels can leave nothing to see of images of 32x24: use 31"),
    ],
)
def test_what_could_hide_a_whole_image_is_refused(augmentation: Any, pointer: str, words: str) -> None:
    assert words in faults("flip", augmentation)[f"/training/augment/1/{pointer}"]
    field = augmentation[pointer]
    assert faults({**augmentation, pointer: field - 1}) == {}
