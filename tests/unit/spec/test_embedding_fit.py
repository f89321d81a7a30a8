"""What a spec of sentence embeddings may not say, each fault at its place."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import TeacherInfo, check_fit

SOURCE = "model:model_00000000000000000000000000"
BERT = {"name": "transformers", "model_type": "bert", "config": {"hidden_size": 16, "num_attention_heads": 2}}
ENCODER = TeacherInfo(task="sentence-embedding", classes=[], input_shape=None)


def faults(*, given: TeacherInfo = ENCODER, **changes: Any) -> dict[str, str]:
    document = {
        "task": "sentence-embedding",
        "dataset": {"source": "builtin:languages"},
        "teacher": {"source": SOURCE},
        "student": {"architecture": BERT},
        "method": {"name": "embedding"},
    }
    spec = parse_spec(document | changes)
    found = check_fit(spec, BUILTIN_DATASETS["languages"].info, teachers={SOURCE: given})
    return {fault.pointer: fault.message for fault in found}


def test_what_fits_has_no_faults_and_needs_no_labels() -> None:
    assert faults() == {}
    assert faults(student={"architecture": BERT, "tokenizer": {"train": "bpe", "vocab_size": 400, "max_length": 32}}) == {}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"method": {"name": "soft-targets"}}, "/method/name", "take the method embedding"),
        ({"dataset": {"source": "builtin:languages", "targets": ["label"]}}, "/dataset/targets", "leave targets empty"),
        ({"evaluation": {"control": True}}, "/evaluation/control", "nothing that the student could learn"),
        ({"exports": ["onnx"]}, "/exports", "leave exports empty"),
        (
            {"teacher": {"architecture": BERT, "tokenizer": {"train": "bpe", "vocab_size": 400}}},
            "/teacher/source",
            "take model:ID, job:ID or hub:REPO",
        ),
    ],
)
def test_what_does_not_fit_is_told_at_its_place(changes: dict[str, Any], pointer: str, words: str) -> None:
    assert words in faults(**changes)[pointer]


def test_a_teacher_of_another_task_and_the_method_for_another_task_are_refused() -> None:
    classifier = TeacherInfo(task="text-classification", classes=["a", "b"], input_shape=None)
    assert "for text-classification" in faults(given=classifier)["/teacher/source"]
    assert (
        "for sentence-embedding"
        in faults(
            task="text-classification",
            teacher={"architecture": BERT, "tokenizer": {"train": "bpe", "vocab_size": 400}},
        )["/method/name"]
    )
