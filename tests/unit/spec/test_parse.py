"""From a document to a spec: each fault points into the document."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.yaml_document import load_yaml

SPEC: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"source": "train", "architecture": {"name": "small-cnn"}},
    "student": {"architecture": {"name": "small-cnn"}},
}


def faults(document: dict[str, Any]) -> dict[str, str]:
    """Messages by pointer."""
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document)
    return {fault.pointer: fault.message for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"labels": {"a/b~c": 1}}, "/labels/a~1b~0c"),
        ({"labels": {"[key]": 1}}, "/labels/[key]"),
        ({"student": {"architecture": {"name": "small-cnn", "width": 0}}}, "/student/architecture/width"),
        ({"student": {"architecture": {"width": 1}}}, "/student/architecture/name"),
        ({"student": {"architecture": {"name": "huge"}}}, "/student/architecture/name"),
        ({"training": {"optimizer": {"name": "sgd", "momentum": 0.0, "nesterov": True}}}, "/training/optimizer"),
        ({"training": {"schedule": {"name": "step", "milestones": [0.1, 2.0]}}}, "/training/schedule/milestones/1"),
        ({"training": {"epochs": 1, "max_steps": 2}}, "/training"),
        ({"training": {"augment": ["corp"]}}, "/training/augment/0"),
        ({"training": {"augment": ["crop", {"name": "corp"}]}}, "/training/augment/1/name"),
        ({"training": {"augment": [{"name": "crop", "padding": 0}]}}, "/training/augment/0/padding"),
        ({"training": {"augment": ["mixup", "cutmix"]}}, "/training/augment"),
        ({"training": {"views": 3}}, "/training"),
    ],
)
def test_a_fault_points_at_its_place_in_the_document(changes: dict[str, Any], pointer: str) -> None:
    assert list(faults(SPEC | changes)) == [pointer]


@pytest.mark.parametrize("name", ["", "x" * 64])
def test_a_label_whose_name_is_at_fault_is_pointed_at_itself(name: str) -> None:
    found = faults(SPEC | {"labels": {name: "x"}})
    assert list(found) == [f"/labels/{name}"]
    assert found[f"/labels/{name}"].startswith("in this field's name: ")


def test_a_missing_field_is_pointed_at_where_it_would_be_whatever_the_job_is_called() -> None:
    assert list(faults({"name": "task"} | {key: value for key, value in SPEC.items() if key != "task"})) == ["/task"]


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e3", 1.5e3), (".5e1", 5.0), ("1e", "1e"), ("e3", "e3"), ("12", 12)]
)
def test_numbers_in_yaml_are_those_that_people_write(text: str, value: object) -> None:
    assert load_yaml(f"x: {text}") == {"x": value}


@pytest.mark.parametrize(
    ("task", "column", "targets"),
    [
        ("image-classification", "image", ["label"]),
        ("text-classification", "text", ["label"]),
        ("audio-classification", "audio", ["label"]),
        ("causal-lm", "text", []),
    ],
)
def test_the_columns_that_a_task_has_by_default_are_written_down(task: str, column: str, targets: list[str]) -> None:
    spec = parse_spec(SPEC | {"task": task})
    assert (spec.dataset.input, spec.dataset.targets) == (column, targets)
    assert parse_spec(spec.model_dump(mode="json")) == spec
    named = parse_spec(SPEC | {"task": task, "dataset": {"source": "builtin:digits", "input": "x", "targets": []}})
    assert (named.dataset.input, named.dataset.targets) == ("x", [])


def test_a_target_is_named_once() -> None:
    found = faults(SPEC | {"dataset": {"source": "builtin:digits", "targets": ["a", "b", "a"]}})
    assert found == {"/dataset/targets": "each target is named once; 'a' is named several times"}
