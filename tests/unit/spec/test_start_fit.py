"""A student that begins with its teacher's layers: what a spec alone can tell of whether it may."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.start_fit import start_faults

BERT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
WORDPIECE = {"train": "wordpiece", "vocab_size": 100}


def faults(
    *, student: dict[str, Any] | None = None, config: dict[str, Any] | None = None, method: str = "soft-targets"
) -> dict[str, str]:
    halved = {"name": "transformers", "model_type": "bert", "config": BERT | {"num_hidden_layers": 2} | (config or {})}
    spec = parse_spec(
        {
            "task": "text-classification",
            "dataset": {"source": "builtin:languages"},
            "teacher": {
                "architecture": {"name": "transformers", "model_type": "bert", "config": BERT},
                "tokenizer": WORDPIECE,
            },
            "student": {"source": "teacher-layers", "architecture": halved, **(student or {})},
            "method": {"name": method},
        }
    )
    return {fault.pointer: fault.message for fault in start_faults(spec)}


@pytest.mark.parametrize("student", [{}, {"layers": [3, 1]}, {"tokenizer": WORDPIECE}])
def test_half_of_the_teacher_is_a_student(student: dict[str, Any]) -> None:
    assert faults(student=student) == {}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"config": {"hidden_size": 8}}, "/student/architecture/config/hidden_size", "hidden_size is 8, and 16 in the teacher"),
        ({"config": {"num_hidden_layers": 5}}, "/student/source", "5 layers and the teacher 4"),
        ({"student": {"layers": [0]}}, "/student/layers", "these are 1 layers, and the student has 2"),
        ({"student": {"layers": [0, 4]}}, "/student/layers/1", "the teacher has 4 layers, 0 to 3, and no layer 4"),
        (
            {"student": {"tokenizer": {"train": "bpe", "vocab_size": 300}}},
            "/student/tokenizer",
            "reads as its teacher: leave its tokenizer out",
        ),
        (
            {"student": {"architecture": {"name": "transformers", "model_type": "gpt2"}}},
            "/student/architecture",
            "the teacher is a bert",
        ),
        ({"student": {"architecture": {"name": "small-cnn", "width": 8}}}, "/student/source", "the student is a small-cnn"),
        ({"method": "born-again"}, "/student/source", "born-again has none before the student"),
    ],
)
def test_what_cannot_be_taken_is_told_with_its_place(changes: dict[str, Any], pointer: str, words: str) -> None:
    found = faults(**changes)
    assert found.keys() == {pointer}
    assert words in found[pointer]


def test_layers_are_for_a_student_that_takes_them() -> None:
    with pytest.raises(InvalidSpec, match="set source to 'teacher-layers', not random"):
        faults(student={"source": "random", "layers": [0]})
