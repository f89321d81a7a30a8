"""Whether a spec fits its data: every fault, at its place, in words that say what to change."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import JobSpec, parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import Column, DatasetInfo
from service.spec.fit import TeacherInfo, check_fit
from service.spec.job import ResourceSpec
from service.spec.training import TrainingSpec

DIGITS = BUILTIN_DATASETS["digits"].info


def spec(*, student: Any = None, dataset: Any = None, teacher: Any = None) -> JobSpec:
    """A spec on the digits, with parts replaced."""
    return parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits", **(dataset or {})},
            "teacher": teacher or {"architecture": {"name": "small-cnn", "width": 64}},
            "student": {"architecture": student or {"name": "small-cnn", "width": 8}},
        }
    )


def vit(**config: Any) -> dict[str, Any]:
    """A small vision transformer that fits the digits."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 2}
    return {"name": "transformers", "model_type": "vit", "config": {**sizes, **config}}


def images(*shape: int, splits: dict[str, int] | None = None, counts: dict[str, list[int]] | None = None) -> DatasetInfo:
    """A dataset of three classes and of images (H, W, C)."""
    columns = {
        "image": Column(kind="image", dtype="uint8", shape=list(shape)),
        "label": Column(kind="label", dtype="int64", num_classes=3),
        "id": Column(kind="other", dtype="string"),
    }
    return DatasetInfo(
        task="image-classification",
        splits=splits or {"train": 300},
        columns=columns,
        classes=["a", "b", "c"],
        class_counts=counts or {},
    )


def faults(job: JobSpec, dataset: DatasetInfo = DIGITS, *, teacher: TeacherInfo | None = None) -> dict[str, str]:
    """Messages by pointer; ``teacher`` is what is known of the first one."""
    known = {} if teacher is None else {next(iter(job.teachers.values())).source: teacher}
    return {fault.pointer: fault.message for fault in check_fit(job, dataset, teachers=known)}


@pytest.mark.parametrize(
    "student",
    [
        None,
        vit(),
        {"name": "resnet8x4"},
        {"name": "vgg8"},
        {"name": "mobilenetv2"},
        vit(image_size=8, num_channels=1, num_labels=10),
    ],
)
def test_what_fits_has_no_faults(student: Any) -> None:
    assert faults(spec(student=student)) == {}


def test_every_fault_is_named_at_once() -> None:
    job = spec(student=vit(patch_size=3), dataset={"targets": ["class"], "splits": {"train": "training"}})
    assert faults(job).keys() == {"/dataset/targets/0", "/dataset/splits/train", "/student/architecture/config/patch_size"}


@pytest.mark.parametrize(
    ("dataset", "pointer", "words"),
    [
        (
            {"input": "pixels"},
            "/dataset/input",
            "no column 'pixels'; its image columns are 'image', of all columns 'image', 'label', 'id'",
        ),
        ({"input": "label"}, "/dataset/input", "holds no images"),
        (
            {"targets": ["id"]},
            "/dataset/targets/0",
            "column 'id' was not uploaded as a target: upload the file again with target_column=id; its target columns",
        ),
        ({"targets": ["class"]}, "/dataset/targets/0", "no column 'class'; its target columns are 'label'"),
        ({"targets": ["label", "class"]}, "/dataset/targets/1", "no column 'class'; its target columns are 'label'"),
        ({"splits": {"train": "big"}}, "/dataset/splits/train", "no split 'big'; it has 'train'"),
        ({"splits": {"test": "val"}}, "/dataset/splits/test", "no split 'val'"),
        ({"splits": {"test": "train"}}, "/dataset/splits/test", "already the train split"),
    ],
)
def test_columns_and_splits_that_are_not_there_are_named_with_those_that_are(dataset: Any, pointer: str, words: str) -> None:
    assert words in faults(spec(dataset=dataset), images(8, 8, 3))[pointer]


def test_a_split_without_rows_is_refused() -> None:
    found = faults(spec(), images(8, 8, 1, splits={"train": 300, "test": 0}))
    assert found == {"/dataset/splits/test": "split 'test' has no rows"}


@pytest.mark.parametrize(
    ("precision", "gpus", "pointers"), [("fp16", 0, {"/training/precision"}), ("fp16", 1, set()), ("bf16", 0, set())]
)
def test_half_precision_without_a_gpu_is_refused(precision: Any, gpus: int, pointers: set[str]) -> None:
    job = spec().model_copy(update={"training": TrainingSpec(precision=precision), "resources": ResourceSpec(gpus=gpus)})
    assert faults(job).keys() == pointers


def test_a_method_between_samples_needs_two_in_a_batch() -> None:
    job = JobSpec.model_validate(spec().model_dump(mode="json") | {"method": {"name": "rkd"}, "training": {"batch_size": 1}})
    assert faults(job) == {"/training/batch_size": "rkd compares the samples of a batch with each other: make it 2 or more"}


def test_too_few_samples_of_a_class_to_hold_some_out_are_refused() -> None:
    scarce = images(8, 8, 1, splits={"train": 22}, counts={"train": [10, 10, 2]})
    message = faults(spec(), scarce)["/dataset/validation_fraction"]
    assert "takes 3 samples of each class; class 'c' has 2" in message
    with_test = images(8, 8, 1, splits={"train": 22, "test": 3}, counts={"train": [10, 10, 2], "test": [1, 1, 1]})
    assert faults(spec(), with_test) == {}
    few = images(8, 8, 1, splits={"train": 2})
    assert "it has 2 rows" in faults(spec(), few)["/dataset/validation_fraction"]


@pytest.mark.parametrize(
    ("student", "shape", "pointer", "words"),
    [
        ({"name": "small-cnn"}, (3, 9, 1), "/name", "4x4 pixels and more; these have 3x9"),
        ({"name": "resnet20"}, (7, 7, 3), "/name", "8x8 pixels and more"),
        ({"name": "wrn-40-2"}, (7, 32, 3), "/name", "wrn-40-2 reads images of 8x8 pixels and more; these have 7x32"),
        ({"name": "vgg13"}, (32, 7, 3), "/name", "8x8 pixels and more"),
        ({"name": "mobilenetv2"}, (7, 7, 3), "/name", "8x8 pixels and more"),
        ({"name": "shufflenetv1"}, (7, 7, 3), "/name", "8x8 pixels and more"),
        ({"name": "shufflenetv2"}, (4, 4, 3), "/name", "8x8 pixels and more"),
        (
            vit(patch_size=16),
            (8, 8, 3),
            "/config/patch_size",
            "patch_size 16 does not divide images of 8x8 pixels; use one of 1, 2, 4, 8",
        ),
        (vit(patch_size=[2, 5]), (8, 8, 3), "/config/patch_size", "does not divide"),
        (vit(num_attention_heads=5), (8, 8, 3), "/config/num_attention_heads", "5 does not divide hidden_size 32"),
        (vit(num_channels=1), (8, 8, 3), "/config/num_channels", "is 3 by the data, not 1"),
        (vit(image_size=224), (8, 8, 3), "/config/image_size", "is 8 by the data, not 224"),
        (vit(num_labels=1000), (8, 8, 3), "/config/num_labels", "is 3 by the data, not 1000"),
        (vit(hiden_size=4), (8, 8, 3), "/config/hiden_size", "no such field (is 'hidden_size'"),
        (vit(attn_implementation="someone/kernel"), (8, 8, 3), "/config/attn_implementation", "no such field"),
        (vit(id2label={"0": "a"}), (8, 8, 3), "/config/id2label", "no such field"),
        (vit(hidden_size="32"), (8, 8, 3), "/config/hidden_size", "must be integer, not '32'"),
        (vit(hidden_size=0), (8, 8, 3), "/config/hidden_size", "must be 1 or more"),
        (vit(hidden_size=10**9), (8, 8, 3), "/config/hidden_size", "at most"),
        (vit(hidden_act="gellu"), (8, 8, 3), "/config/hidden_act", "(is 'gelu'"),
        (vit(hidden_dropout_prob=1.5), (8, 8, 3), "/config/hidden_dropout_prob", "below 1"),
        ({"name": "transformers", "model_type": "bert"}, (8, 8, 3), "/model_type", "no image classifier of transformers"),
        ({"name": "transformers", "model_type": "vitt"}, (8, 8, 3), "/model_type", "is 'vit'"),
        (
            {"name": "transformers", "model_type": "resnet", "config": {"depths": [1, 1]}},
            (8, 8, 3),
            "/config/hidden_sizes",
            "is for 4 stages and depths for 2",
        ),
        ({"name": "transformers", "model_type": "swin"}, (32, 32, 3), "/config", "down to 1 in a stage that needs 7"),
        (
            {"name": "transformers", "model_type": "dinov2", "config": {"patch_size": 4}},
            (8, 16, 3),
            "/model_type",
            "square images",
        ),
    ],
)
def test_an_architecture_that_does_not_fit_the_images_is_refused(student: Any, shape: Any, pointer: str, words: str) -> None:
    assert words in faults(spec(student=student), images(*shape))[f"/student/architecture{pointer}"]


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (TeacherInfo("image-classification", ["a", "b"], (3, 8, 8)), "it has 2, the dataset 3"),
        (TeacherInfo("image-classification", ["a", "b", "d"], (3, 8, 8)), "it lacks 'c'; its outputs are 'a', 'b', 'd'"),
        (TeacherInfo("image-classification", ["LABEL_0", "LABEL_1", "LABEL_2"], (3, 8, 8)), '"id2label": {"0": "a", "1": "b"'),
        (
            TeacherInfo("image-classification", ["a", "b", "c"], (1, 8, 8)),
            "1 channel, and the dataset's are 8x8 pixels with 3 channels",
        ),
    ],
)
def test_a_teacher_of_other_classes_or_images_is_refused(teacher: TeacherInfo, words: str) -> None:
    job = spec(teacher={"source": "job:job_01h00000000000000000000000"})
    assert words in faults(job, images(8, 8, 3), teacher=teacher)["/teacher/source"]


@pytest.mark.parametrize("classes", [["a", "b", "c"], ["C", "b", "A"], ["d", "c", "b", "a"]])
def test_a_teacher_of_the_same_classes_in_any_order_and_images_fits(classes: list[str]) -> None:
    job = spec(teacher={"source": "model:model_1"})
    teacher = TeacherInfo("image-classification", classes, (3, 8, 8))
    assert faults(job, images(8, 8, 3), teacher=teacher) == {}


def test_assistants_must_fit_the_data_each_at_its_place() -> None:
    assistants = [{"name": "small-cnn"}, {"name": "resnet20"}]
    job = spec().model_dump(mode="json") | {"method": {"name": "teacher-assistant", "assistants": assistants}}
    found = faults(parse_spec(job), images(6, 6, 1))
    assert "8x8 pixels and more" in found["/method/assistants/1/name"]
    assert "/method/assistants/0/name" not in found


def test_a_chain_is_no_term_of_a_sum() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(spec().model_dump(mode="json") | {"method": {"terms": [{"name": "labels"}, {"name": "born-again"}]}})
    (fault,) = caught.value.faults
    assert fault.pointer == "/method"
    assert "no term of a sum" in fault.message


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"source": "model:model_1"}, "source 'train' and an architecture"),
        ({"architecture": {"name": "small-cnn"}, "training": {"epochs": 7}}, "leave out /teacher/training"),
    ],
)
def test_peers_are_trained_together_and_alike(teacher: dict[str, Any], words: str) -> None:
    document = spec().model_dump(mode="json", exclude={"teacher"}) | {"method": {"name": "deep-mutual"}}
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document | {"teacher": teacher})
    assert words in caught.value.faults[0].message

    job = parse_spec(document | {"teacher": {"architecture": {"name": "small-cnn"}}, "training": {"epochs": 7}})
    assert job.teachers["teacher"].training == job.training
    assert parse_spec(job.model_dump(mode="json")) == job


CNN = {"architecture": {"name": "small-cnn"}}


def several(*teachers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return spec().model_dump(mode="json", exclude={"teacher"}) | {"teacher": list(teachers)} | changes


@pytest.mark.parametrize(
    ("document", "pointer", "words"),
    [
        (several(), "/teacher", "at least 1"),
        (several(CNN, {"architecture": {"name": "small-cnm"}}), "/teacher/1/architecture/name", "not known here"),
        (several(CNN | {"weight": 0.0}), "/teacher/0/weight", "greater than 0"),
        (several(CNN, CNN | {"weight": 2.0}), "", "/teacher/1 is the very network of /teacher/0"),
        (several(CNN, {"source": "job:x"}, method={"name": "fitnet"}), "", "fitnet looks inside the teacher"),
        (several(CNN, {"source": "job:x"}, method={"name": "deep-mutual"}), "", "one peer"),
        (several(CNN) | {"teacher": 3}, "/teacher", "valid dictionary"),
    ],
)
def test_faults_of_several_teachers_name_their_places(document: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document)
    (fault,) = caught.value.faults
    assert fault.pointer == pointer
    assert words in fault.message


def test_each_of_several_teachers_must_fit_the_data() -> None:
    known = TeacherInfo(task="image-classification", classes=["cat", "dog"], input_shape=(1, 8, 8))
    job = parse_spec(several({"source": "model:a"}, CNN | {"targets": ["breed"]}))
    found = faults(job, teacher=known)
    assert "other classes" in found["/teacher/0/source"]
    assert "no target 'breed'" in found["/teacher/1/targets/0"]


def test_a_target_that_nobody_teaches_is_for_multi_task_alone() -> None:
    columns = {
        "image": Column(kind="image", dtype="uint8", shape=[8, 8, 1]),
        "sex": Column(kind="label", dtype="int64", num_classes=2, classes=["f", "m"]),
        "age": Column(kind="number", dtype="float32"),
    }
    people = DatasetInfo(task="image-classification", splits={"train": 300}, columns=columns, classes=[])
    dataset = {"source": "builtin:digits", "targets": ["sex", "age"]}

    def found(*teachers: dict[str, Any], method: str = "soft-targets", known: TeacherInfo | None = None) -> dict[str, str]:
        return faults(parse_spec(several(*teachers, dataset=dataset, method={"name": method})), people, teacher=known)

    of_age = CNN | {"targets": ["age"]}
    assert "no teacher teaches 'sex'" in found(of_age)["/teacher/0/targets"]
    assert found(of_age, method="multi-task") == {}
    assert found(of_age, {"source": "model:a", "targets": ["sex"]}) == {}
    of_sex = {"source": "model:a", "targets": ["sex"]}
    for classes, refused in ((["f", "m"], False), (["sex: f", "sex: m", "age"], False), (["f", "x"], True)):
        known = TeacherInfo(task="image-classification", classes=classes, input_shape=(1, 8, 8))
        assert ("/teacher/0/source" in found(of_sex, of_age, known=known)) == refused
