"""Sources of networks: what may stand in a spec for a teacher and for a student, and what is asked for beside it."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import JobSpec, parse_spec
from service.spec.source import NetworkSource, is_given, split_network

CNN = {"name": "small-cnn"}
GIVEN = [
    ("job:job_00000000000000000000000000", NetworkSource("job", "job_00000000000000000000000000")),
    ("job:job_00000000000000000000000000/teacher", NetworkSource("job", "job_00000000000000000000000000", "teacher")),
    ("model:model_00000000000000000000000000", NetworkSource("model", "model_00000000000000000000000000")),
    ("model:bert.base-uncased_2", NetworkSource("model", "bert.base-uncased_2")),
    ("hub:anna/bert@main", NetworkSource("hub", "anna/bert@main")),
    ("file:/models/a folder/teacher", NetworkSource("file", "/models/a folder/teacher")),
]
LORA = {"name": "lora"}


def spec(**parts: Any) -> JobSpec:
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": CNN},
        "student": {"architecture": CNN},
    }
    return parse_spec(document | parts)


def faults(**parts: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        spec(**parts)
    return {fault.pointer: fault.message for fault in caught.value.faults}


@pytest.mark.parametrize(("text", "parts"), GIVEN)
def test_a_teacher_and_a_student_may_be_any_network_that_exists(text: str, parts: NetworkSource) -> None:
    read = spec(teacher={"source": text}, student={"source": text})
    assert (read.first_teacher.source, read.student.source) == (text, text)
    assert is_given(text)
    assert split_network(text) == parts
    assert parse_spec(read.model_dump(mode="json")) == read


@pytest.mark.parametrize("text", ["train", "random", "teacher-layers"])
def test_what_a_job_builds_itself_is_not_given(text: str) -> None:
    assert not is_given(text)
    assert split_network(text) == NetworkSource(text, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://x", "write one of"),
        ("job:", "write one of"),
        ("file:", "write one of"),
        ("job:a/student", "names no job"),
        ("job:/teacher", "names no job"),
        ("job:a/teacher/teacher", "names no job"),
        ("model:a/b", "names no model"),
        ("model:../a", "names no model"),
        ("model:a/teacher", "names no model"),
        ("hub:a/b/teacher", "names nothing on the Hub"),
        ("file:a\0b", "is no path"),
    ],
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_what_names_no_network_is_refused_at_its_place(text: str, words: str, role: str) -> None:
    found = faults(**{role: {"source": text}})
    assert found.keys() == {f"/{role}/source"}
    assert words in found[f"/{role}/source"]


@pytest.mark.parametrize(("role", "word"), [("teacher", "random"), ("teacher", "teacher-layers"), ("student", "train")])
def test_a_word_of_the_other_network_is_no_source(role: str, word: str) -> None:
    assert "is not a source" in faults(**{role: {"source": word}})[f"/{role}/source"]


@pytest.mark.parametrize("source", [{}, {"source": "random"}, {"source": "teacher-layers"}])
def test_a_student_that_is_built_needs_an_architecture(source: dict[str, str]) -> None:
    assert faults(student=source) == {"/student/architecture": "this field is needed"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("architecture", CNN), ("tokenizer", {"train": "bpe", "vocab_size": 300}), ("features", {"name": "log-mel"})],
)
def test_a_given_student_has_a_network_and_a_reading_of_its_own(field: str, value: Any) -> None:
    assert faults(student={"source": "model:a", field: value}) == {
        f"/student/{field}": f"a student from model:a has its own {field}: leave it out"
    }


@pytest.mark.parametrize("source", ["random", "teacher-layers"])
def test_an_adapter_is_for_a_student_that_exists(source: str) -> None:
    found = faults(student={"source": source, "architecture": CNN, "adapter": LORA})
    assert list(found) == ["/student/adapter"]
    assert f"source is {source}" in found["/student/adapter"]
    assert spec(student={"source": "model:a", "adapter": LORA}).student.adapter is not None


def test_a_given_teacher_may_be_fine_tuned_and_by_an_adapter_alone() -> None:
    tuned = spec(teacher={"source": "model:a", "training": {"epochs": 1}, "adapter": LORA}).first_teacher
    assert tuned.training is not None
    assert tuned.training.epochs == 1
    assert tuned.adapter is not None


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"source": "model:a", "adapter": LORA}, "give a source and training"),
        ({"architecture": CNN, "adapter": LORA}, "give a source and training"),
        ({"source": "model:a", "training": {"epochs": 1}, "dtype": "int8"}, "leave it out, or leave training out"),
        ({"architecture": CNN, "dtype": "bf16"}, "leave it out, or leave training out"),
    ],
)
def test_an_adapter_is_trained_and_a_number_format_is_not(teacher: dict[str, Any], words: str) -> None:
    (message,) = faults(teacher=teacher).values()
    assert words in message


@pytest.mark.parametrize(
    ("adapter", "pointer"),
    [
        ({"name": "prefix"}, "/student/adapter/name"),
        (LORA | {"rank": 0}, "/student/adapter/rank"),
        (LORA | {"targets": []}, "/student/adapter/targets"),
        (LORA | {"targets": ["a", "b", "a"]}, "/student/adapter/targets"),
        (LORA | {"variant": "qlora"}, "/student/adapter/variant"),
    ],
)
def test_a_fault_of_an_adapter_points_at_its_place(adapter: dict[str, Any], pointer: str) -> None:
    found = faults(student={"source": "model:a", "adapter": adapter})
    assert {place.removesuffix("/auto").partition("/list")[0] for place in found} == {pointer}


def test_a_micro_batch_is_a_part_of_a_batch() -> None:
    assert spec(training={"batch_size": 8, "micro_batch": 8}).training.micro_batch == 8
    assert "make it that or less" in faults(training={"batch_size": 8, "micro_batch": 9})["/training"]
