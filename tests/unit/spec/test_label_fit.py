"""Which jobs need labels: refused at their place with a remedy, before they wait; all others pass without."""

import re
from dataclasses import replace
from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.data import Column, DatasetInfo
from service.spec.fit import TeacherInfo, check_fit

GIVEN = {"source": "model:model_1"}
TRAINED = {"source": "train", "architecture": {"name": "small-cnn", "width": 8}}
NAMES = ["cat", "dog", "emu"]
KNOWN = TeacherInfo(task="image-classification", classes=NAMES, input_shape=(1, 8, 8))
ROWS = {"train": 60, "validation": 20, "test": 20}


def images(
    classes: list[str] | None = None,
    *,
    train: list[int] | None = None,
    validation: list[int] | None = None,
    test: list[int] | None = None,
    unlabelled: dict[str, int] | None = None,
) -> DatasetInfo:
    """Images of three classes, with so many rows of each in a split, and so many without a label by split."""
    classes = NAMES if classes is None else classes
    fives = [5] * len(classes)
    counts = {"train": train or [20] * len(classes), "validation": validation or fives, "test": test or fives}
    label = Column(
        kind="label",
        dtype="int64",
        classes=classes,
        class_counts=counts,
        num_missing=sum((unlabelled or {}).values()),
        missing_counts=unlabelled or {},
    )
    image = Column(kind="image", dtype="uint8", shape=[8, 8, 1])
    columns = {"image": image, "label": label}
    return DatasetInfo(task="image-classification", splits=ROWS, columns=columns, classes=classes, class_counts=counts)


NOTHING = images([], unlabelled=ROWS)
SOME = images(train=[20, 20, 10], unlabelled={"train": 10})
DIGITS = TeacherInfo(task="image-classification", classes=[str(digit) for digit in range(10)], input_shape=None)
GAP = images(["0", "1", "2"], train=[30, 0, 30], validation=[5, 0, 5], test=[5, 0, 5])


def faults(data: DatasetInfo, *, teacher: Any = GIVEN, known: TeacherInfo = KNOWN, **changes: Any) -> dict[str, str]:
    spec = parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "dataset:ds_1"},
            "teacher": teacher,
            "student": {"architecture": {"name": "small-cnn", "width": 4}},
        }
        | changes
    )
    return {fault.pointer: fault.message for fault in check_fit(spec, data, teachers={"model:model_1": known})}


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"name": "soft-targets", "label_weight": 0.5},
        {"name": "dist"},
        {"name": "logit-standardization"},
        {"name": "multi-task"},
        {"name": "distilbert"},
        {"name": "born-again"},
        {"name": "teacher-assistant", "assistants": [{"name": "small-cnn", "width": 6}]},
        {"terms": [{"name": "soft-targets"}, {"name": "fitnet"}]},
    ],
)
def test_a_student_of_a_given_teacher_needs_no_label(method: Any) -> None:
    assert faults(NOTHING, method=method) == {}
    assert faults(SOME, method=method) == {}


def test_a_class_may_be_missing_wherever_a_teacher_is_given() -> None:
    without_dogs = images(train=[30, 0, 30])
    assert faults(without_dogs) == {}
    assert "no row of 'dog'" in faults(without_dogs, teacher=TRAINED)["/dataset/targets/0"]
    assert faults(images(train=[60, 0, 0])) == {}


def test_a_class_may_be_too_rare_to_be_in_every_part_wherever_a_teacher_is_given() -> None:
    rare = images(train=[20, 20, 2], unlabelled={"train": 18})
    rare = rare.model_copy(update={"splits": {"train": 60}})
    assert faults(rare) == {}
    refusal = faults(rare, teacher=TRAINED)["/dataset/validation_fraction"]
    assert "takes 3 samples of each class; class 'emu' has 2" in refusal
    few = faults(rare.model_copy(update={"splits": {"train": 2}}))["/dataset/validation_fraction"]
    assert "takes 3 samples; it has 2 rows" in few


@pytest.mark.parametrize(
    ("dataset", "pointer", "words"),
    [
        (NOTHING, "/dataset/targets/0", "no value in any row"),
        (images(train=[60, 0, 0]), "/dataset/targets/0", "one class, 'cat'"),
        (GAP, "/dataset/targets/0", "class indices up to 2"),
        (images(unlabelled={"validation": 20}), "/dataset/splits/validation", "validation null"),
    ],
)
def test_a_teacher_that_is_trained_here_needs_labels(dataset: DatasetInfo, pointer: str, words: str) -> None:
    found = faults(dataset, teacher=TRAINED)
    assert found.keys() == {pointer}
    assert words in found[pointer]
    assert "give a teacher" in found[pointer]
    assert faults(dataset, known=DIGITS if dataset is GAP else KNOWN) == {}


def test_a_teacher_that_is_trained_here_learns_from_the_rows_that_have_a_label() -> None:
    assert faults(SOME, teacher=TRAINED) == {}
    assert (
        faults(
            images(unlabelled={"validation": 20}),
            teacher=TRAINED,
            dataset={"source": "dataset:ds_1", "splits": {"train": "train", "validation": None, "test": "test"}},
        )
        == {}
    )


@pytest.mark.parametrize(
    ("method", "pointer"),
    [
        ({"name": "dkd"}, "/method/name"),
        ({"name": "ofa"}, "/method/name"),
        ({"name": "teacher-free"}, "/method/name"),
        ({"name": "crd"}, "/method/name"),
        ({"name": "logit-standardization", "loss": "dkd"}, "/method/name"),
        ({"terms": [{"name": "soft-targets"}, {"name": "dkd"}]}, "/method/terms/1/name"),
    ],
)
def test_a_method_that_reads_each_rows_class_says_so_of_rows_without(method: Any, pointer: str) -> None:
    for dataset, remedy in ((NOTHING, "label them"), (SOME, "drop these rows")):
        found = faults(dataset, method=method)
        assert remedy in found[pointer]
        assert "such as soft-targets" in found[pointer]
    with_transfer = faults(images(), method=method, dataset={"source": "dataset:ds_1", "transfer": "dataset:ds_2"})
    assert "leave transfer out" in with_transfer[pointer]
    assert faults(images(), method=method) == {}


@pytest.mark.parametrize(
    ("method", "pointer", "words"),
    [
        ({"terms": [{"name": "soft-targets"}, {"name": "labels"}]}, "/method/terms/1/name", "label some"),
        ({"name": "distillation-network"}, "/method/name", "label some"),
        ({"name": "fitnet"}, "/method", "add a term that teaches the outputs"),
        ({"name": "rkd"}, "/method", "add a term that teaches the outputs"),
        ({"name": "soft-targets", "label_weight": 1.0}, "/method", "label_weight below 1"),
        ({"name": "multi-task", "teacher_weight": 0.0}, "/method", "add a term that teaches the outputs"),
    ],
)
def test_what_would_leave_the_students_outputs_untaught_is_refused(method: Any, pointer: str, words: str) -> None:
    found = faults(NOTHING, method=method)
    assert found.keys() == {pointer}
    assert words in found[pointer]
    assert faults(SOME, method=method) == {}


def test_a_target_without_labels_and_without_a_teacher_would_learn_nothing() -> None:
    dataset = images()
    size = Column(kind="label", dtype="int64", classes=[], class_counts={}, num_missing=100, missing_counts=ROWS)
    both = dataset.model_copy(update={"columns": dataset.columns | {"size": size}})
    found = faults(
        both,
        teacher={**GIVEN, "targets": ["label"]},
        dataset={"source": "dataset:ds_1", "targets": ["label", "size"]},
        method={"name": "multi-task"},
    )
    assert "a target that no teacher teaches needs labels" in found["/dataset/targets/1"]


def test_data_without_labels_have_their_teachers_classes() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 2}

    def vit(num_labels: int) -> dict[str, Any]:
        return {"architecture": {"name": "transformers", "model_type": "vit", "config": sizes | {"num_labels": num_labels}}}

    assert faults(NOTHING, student=vit(3)) == {}
    assert "/student/architecture/config/num_labels" in faults(NOTHING, student=vit(4))
    # A teacher of a number makes it a number, for which this method is not made.
    number = TeacherInfo(task="image-classification", classes=["label"], input_shape=None)
    assert faults(NOTHING, known=number) == {}
    assert "a number" in faults(NOTHING, known=number, method={"name": "dist"})["/method/name"]


@pytest.mark.parametrize(
    ("theirs", "kind", "words"),
    [
        ("multi_label_classification", "label", 'has a class by itself, .* the dataset a class. .*"problem_type": "single_label'),
        ("single_label_classification", "labels", 'has a class at each output, the dataset a class by itself.*"multi_label'),
        ("regression", "labels", "has a number at each output"),
        ("multi_label_classification", "labels", None),
        ("single_label_classification", "probabilities", None),
        (None, "labels", None),
    ],
)
def test_a_teacher_whose_outputs_mean_something_else_is_refused(theirs: Any, kind: Any, words: str | None) -> None:
    data = images()
    label = data.columns["label"].model_copy(update={"kind": kind})
    found = faults(
        data.model_copy(update={"columns": data.columns | {"label": label}}), known=replace(KNOWN, problem_type=theirs)
    )
    assert found == {} if words is None else re.search(words, found["/teacher/source"])


def test_integers_are_read_by_a_teacher_that_knows_them_all() -> None:
    assert faults(images(["0", "1", "2"]), known=DIGITS) == {}
    assert faults(images(["0", "1", "2", "3"], train=[20, 0, 20, 20], test=[5, 5, 5, 5]), known=DIGITS) == {}


def test_smoothed_labels_and_weighted_classes_need_classes() -> None:
    number = Column(kind="number", dtype="float64")
    image = Column(kind="image", dtype="uint8", shape=[8, 8, 1])
    sizes = DatasetInfo(task="image-classification", splits=ROWS, columns={"image": image, "label": number}, classes=[])
    teacher = TRAINED | {"training": {"label_smoothing": 0.1}}
    found = faults(sizes, teacher=teacher, training={"class_weights": "balanced"})

    assert found.keys() == {"/training/class_weights", "/teacher/training/label_smoothing"}
    assert "no target of classes: leave class_weights out" in found["/training/class_weights"]
    assert not faults(images(), teacher=teacher, training={"class_weights": "balanced"})


def test_the_weight_of_a_class_that_is_none_is_refused_by_its_name() -> None:
    found = faults(images(), training={"class_weights": {"cat": 2, "cow/ox": 3}})
    assert list(found) == ["/training/class_weights/cow~1ox"]
    assert "it has 'cat', 'dog', 'emu'" in found["/training/class_weights/cow~1ox"]


def with_weights(data: DatasetInfo, kind: Any = "weight") -> DatasetInfo:
    return data.model_copy(update={"columns": data.columns | {"trust": Column(kind=kind, dtype="float64")}})


@pytest.mark.parametrize(
    ("kind", "weight", "why"),
    [
        ("other", "trust", "upload the file again with weight_column=trust"),
        ("weight", "truth", "the dataset has no column 'truth'"),
        ("weight", "label", "column 'label' is an input or a target too"),
    ],
)
def test_a_weight_is_a_column_that_was_uploaded_as_one(kind: str, weight: str, why: str) -> None:
    found = faults(with_weights(images(), kind), dataset={"source": "dataset:ds_1", "weight": weight})
    assert found.keys() == {"/dataset/weight"}
    assert why in found["/dataset/weight"]


def test_rows_have_weights_in_losses_that_are_means_over_them() -> None:
    data, dataset = with_weights(images()), {"source": "dataset:ds_1", "weight": "trust"}
    assert not faults(data, dataset=dataset)
    assert not faults(data, dataset=dataset, method={"terms": [{"name": "labels"}, {"name": "logit-standardization"}]})
    for method in ({"name": "rkd"}, {"name": "logit-standardization", "loss": "dist"}):
        found = faults(data, dataset=dataset, method=method)
        assert "its loss is no mean in which a row has a weight: leave weight out" in found["/dataset/weight"]


def listed(kind: Any) -> DatasetInfo:
    data = images()
    return data.model_copy(update={"columns": data.columns | {"label": data.columns["label"].model_copy(update={"kind": kind})}})


def test_methods_of_one_class_a_row_are_refused_where_rows_have_lists() -> None:
    for name in ("dkd", "dist", "logit-standardization", "ofa", "teacher-free", "crd", "distilbert"):
        found = faults(listed("labels"), method={"name": name})
        assert "these rows have any number of them, each a yes or no" in found["/method/name"]
    for name in ("dkd", "ofa", "teacher-free", "crd"):
        assert "these rows have probabilities of all" in faults(listed("probabilities"), method={"name": name})["/method/name"]
    fitting = [
        ("labels", "soft-targets"),
        ("labels", "rkd"),
        ("labels", "fitnet"),
        ("probabilities", "dist"),
        ("labels", "multi-task"),
    ]
    for kind, name in fitting:
        assert not faults(listed(kind), method={"name": name}), name
    bias = {"correct_bias": True}
    assert "no classes that exclude each other" in faults(listed("labels"), evaluation=bias)["/evaluation/correct_bias"]
    assert not faults(listed("probabilities"), evaluation=bias)


NUMBERED = images(["0", "1", "2"])


def test_classes_that_are_numbers_may_be_named_by_the_spec() -> None:
    dataset: Any = {"source": "dataset:ds_1", "class_names": {"label": NAMES}}
    assert not faults(NUMBERED, dataset=dataset)
    assert "was trained on other classes" in faults(NUMBERED)["/teacher/source"], "a teacher is of named classes"
    weights = {"class_weights": {"emu": 2}}
    assert not faults(NUMBERED, dataset=dataset, training=weights)

    for data, names, why in (
        (images(), {"label": NAMES}, "its classes have names: 'cat'"),
        (NUMBERED, {"label": NAMES[:2]}, "it has 3 classes, and these are 2 names"),
        (NUMBERED, {"labels": NAMES}, "'labels' is no target"),
    ):
        found = faults(data, dataset=dataset | {"class_names": names})
        assert why in found[f"/dataset/class_names/{next(iter(names))}"]
    with pytest.raises(InvalidSpec, match="each class has a name of its own; 'cat'"):
        faults(NUMBERED, dataset=dataset | {"class_names": {"label": ["cat", "cat", "emu"]}})
