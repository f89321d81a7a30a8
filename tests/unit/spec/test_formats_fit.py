"""Number formats that would end in another network than the spec means are refused at their place."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.formats_fit import format_faults

BERT = {"name": "transformers", "model_type": "bert", "config": {}}
LAYERS = {"source": "teacher-layers", "architecture": BERT}


def places(teacher: Any, **parts: Any) -> list[str]:
    document = {
        "task": "text-classification",
        "dataset": {"source": "dataset:a"},
        "teacher": teacher,
        "student": {"architecture": BERT},
    }
    return [fault.pointer for fault in format_faults(parse_spec(document | parts))]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_student_does_not_begin_with_layers_that_were_rounded(dtype: str) -> None:
    teacher = {"source": "model:a", "dtype": dtype}
    assert places(teacher, student=LAYERS) == ["/teacher/dtype"]
    assert places([teacher, {"source": "model:b"}], student=LAYERS) == ["/teacher/0/dtype"]
    assert places([{"source": "model:b"}, teacher], student=LAYERS) == []
    assert places(teacher) == places({"source": "model:a", "dtype": "bf16"}, student=LAYERS) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_in_bf16_are_trained_in_bf16(precision: str) -> None:
    student = {"architecture": BERT, "weights": "bf16"}
    training = {"precision": precision}
    assert places({"source": "model:a"}, student=student, training=training) == ["/training/precision"]
    assert places({"source": "model:a"}, training=training) == []


def test_weights_that_are_folded_in_the_end_are_not_in_bf16() -> None:
    student = {"architecture": BERT, "weights": "bf16"}
    method = {"name": "distillation-network"}
    assert places({"source": "model:a"}, student=student, method=method) == ["/student/weights"]
