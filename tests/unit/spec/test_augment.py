"""What ``training.augment`` may hold, and what fits a task."""

import re
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from service.spec import JobSpec, parse_spec
from service.spec.augment import AUGMENTATIONS, MIXTURES, Augment, AugmentationName, AugmentationSpec
from service.spec.augment_fit import augmentation_faults
from service.spec.data import Column, DatasetInfo
from service.spec.fit import check_fit
from service.spec.tasks import TASKS, TaskName
from worker.data.augment import MIX_OPERATIONS, OPERATIONS

AUGMENT: TypeAdapter[list[AugmentationSpec]] = TypeAdapter(Augment)


def faults(
    *augment: Any, task: TaskName = "image-classification", shape: tuple[int, int, int] | None = (3, 32, 24)
) -> dict[str, str]:
    """Messages by pointer."""
    found = augmentation_faults(AUGMENT.validate_python(list(augment)), task=task, image_shape=shape, pointer="/training/augment")
    return {fault.pointer: fault.message for fault in found}


def test_pages_operations_and_spec_have_the_same_names() -> None:
    names = set(get_args(AugmentationName))
    assert AUGMENTATIONS.keys() == names == OPERATIONS.keys() | MIX_OPERATIONS.keys()
    assert MIX_OPERATIONS.keys() == set(MIXTURES)
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
        tasks = [task for task, info in TASKS.items() if set(info.modalities) & set(page.modalities)]
        assert tasks
        assert all(faults(name, task=task, shape=None) == {} for task in tasks)


def test_what_does_not_fit_a_task_is_named_with_what_does() -> None:
    found = faults("crop", "specaugment", "token-dropout")
    assert found.keys() == {"/training/augment/1", "/training/augment/2"}
    assert (
        "specaugment is for log-mel inputs, which image-classification does not read; use one of random-resized-crop, crop,"
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


def job(**parts: Any) -> JobSpec:
    """A spec on images of 8x8 pixels, with parts replaced."""
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn"}},
        "student": {"architecture": {"name": "small-cnn"}},
    }
    return parse_spec(document | parts)


def sound(teacher: Any, student: Any, augment: list[Any]) -> JobSpec:
    networks = {
        role: {"architecture": {"name": "transformers", "model_type": "wav2vec2"}, "features": features}
        if features and features["name"] == "waveform"
        else {"architecture": {"name": "small-cnn"}, "features": features}
        for role, features in (("teacher", teacher), ("student", student))
    }
    return job(task="audio-classification", training={"augment": augment}, **networks)


def text(teacher: Any, student: Any, augment: list[Any]) -> JobSpec:
    bert = {"architecture": {"name": "transformers", "model_type": "bert"}}
    networks = {"teacher": {**bert, "tokenizer": teacher}, "student": {**bert, "tokenizer": student}}
    return job(task="text-classification", training={"augment": augment}, **networks)


def described(kind: Any, **more: Any) -> DatasetInfo:
    columns = {
        kind: Column(kind=kind, dtype="x", **more),
        "label": Column(kind="label", dtype="int64", num_classes=2, classes=["a", "b"]),
    }
    task = next(task for task, info in TASKS.items() if info.input_kind == kind)
    return DatasetInfo(task=task, splits={"train": 100}, columns=columns, classes=["a", "b"])


IMAGES, CLIPS, TEXTS = described("image", shape=[8, 8, 1]), described("audio", longest_seconds=1.0), described("text")
WORDPIECE = {"train": "wordpiece", "vocab_size": 300}
BPE = {"train": "bpe", "vocab_size": 300}


def of_augment(spec: JobSpec, dataset: DatasetInfo) -> dict[str, str]:
    """Those of the faults that are about augmentation."""
    return {fault.pointer: fault.message for fault in check_fit(spec, dataset, teachers={}) if "/augment" in fault.pointer}


def test_a_teachers_augmentation_is_looked_at_as_well_as_the_students() -> None:
    teacher = {"architecture": {"name": "small-cnn"}, "training": {"augment": ["gain"]}}
    spec = job(teacher=teacher, training={"augment": ["flip", {"name": "crop", "padding": 8}]})
    found = of_augment(spec, IMAGES)
    assert found.keys() == {"/teacher/training/augment/0", "/training/augment/1/padding"}


@pytest.mark.parametrize(
    ("method", "augment", "words"),
    [
        ({"name": "dkd"}, ["crop", "mixup"], "the loss of dkd reads one class"),
        ({"name": "ofa"}, ["crop", "cutmix"], "the loss of ofa reads one class"),
        ({"name": "teacher-free"}, ["flip", "mixup"], "cutmix|mixup gives a sample two labels"),
        ({"name": "crd"}, ["flip", "mixup"], "leave it out, or take another method"),
        ({"name": "logit-standardization", "loss": "dkd"}, ["flip", "mixup"], "logit-standardization"),
        ({"terms": [{"name": "labels"}, {"name": "dkd"}]}, ["flip", "mixup"], "dkd"),
        ({"name": "logit-standardization"}, ["flip", "mixup"], None),
        ({"name": "dkd"}, ["flip", "crop"], None),
    ],
)
def test_methods_that_read_one_class_and_mixtures_exclude_each_other(method: Any, augment: Any, words: str | None) -> None:
    found = of_augment(job(method=method, training={"augment": augment}), IMAGES)
    assert found.keys() == ({"/training/augment/1"} if words else set())
    if words:
        assert re.search(words, found["/training/augment/1"])


@pytest.mark.parametrize(
    ("teacher", "student", "augment", "pointer", "words"),
    [
        (None, None, ["gain", "specaugment"], None, ""),
        ({"name": "waveform"}, None, ["gain", "mixup"], None, ""),
        (
            {"name": "waveform"},
            {"name": "waveform"},
            ["gain", "specaugment"],
            "/1",
            "the student and the teacher reads waveforms",
        ),
        ({"name": "waveform"}, None, ["specaugment"], "/0", "the teacher reads waveforms"),
        ({"name": "log-mel", "mels": 32}, None, ["specaugment"], "/0", "other numbers of mel bands"),
        ({"name": "waveform", "sample_rate": 8000}, None, ["gain"], "", "the teacher reads 8000 samples a second"),
    ],
)
def test_networks_of_sound_are_to_see_the_same_view(
    teacher: Any, student: Any, augment: Any, pointer: str | None, words: str
) -> None:
    found = of_augment(sound(teacher, student, augment), CLIPS)
    if pointer is None:
        assert found == {}
    else:
        assert words in found[f"/training/augment{pointer}"]


@pytest.mark.parametrize(
    ("teacher", "student", "augment", "words"),
    [
        (WORDPIECE, None, ["token-dropout"], None),
        (WORDPIECE, WORDPIECE, ["token-dropout"], None),
        (WORDPIECE, BPE, ["token-dropout"], "they have different tokenizers"),
        (BPE, None, [{"name": "token-dropout", "mode": "delete"}], None),
        (BPE, None, ["token-dropout"], "take the mode delete"),
    ],
)
def test_tokens_are_dropped_of_both_networks_alike(teacher: Any, student: Any, augment: Any, words: str | None) -> None:
    found = of_augment(text(teacher, student, augment), TEXTS)
    assert len(found) == (words is not None)
    assert all(words is not None and words in message for message in found.values())


def test_the_tokenizer_of_a_teacher_from_elsewhere_is_another_than_the_students_own() -> None:
    document = text(WORDPIECE, WORDPIECE, ["token-dropout"]).model_dump(mode="json")
    spec = parse_spec(document | {"teacher": {"source": "model:model_1"}})
    assert "different tokenizers" in of_augment(spec, TEXTS)["/training/augment/0"]
