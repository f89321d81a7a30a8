"""Whether a spec for texts fits its data and itself: each fault at its place, in words that say what to change."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import TeacherInfo, check_fit

LANGUAGES = BUILTIN_DATASETS["languages"].info
WORDPIECE = {"train": "wordpiece", "vocab_size": 500, "max_length": 32}
BPE = {"train": "bpe", "vocab_size": 400, "max_length": 32}
BERT = {"name": "transformers", "model_type": "bert", "config": {"max_position_embeddings": 32}}
GPT2 = {"name": "transformers", "model_type": "gpt2", "config": {"n_positions": 32}}


def document(**changes: Any) -> dict[str, Any]:
    """A BERT with WordPiece teaches a GPT-2 with byte pairs."""
    return {
        "task": "text-classification",
        "dataset": {"source": "builtin:languages"},
        "teacher": {"architecture": BERT, "tokenizer": WORDPIECE},
        "student": {"architecture": GPT2, "tokenizer": BPE},
    } | changes


def faults(*, teacher_info: TeacherInfo | None = None, **changes: Any) -> dict[str, str]:
    spec = parse_spec(document(**changes))
    found = check_fit(spec, LANGUAGES, teachers={spec.first_teacher.source: teacher_info} if teacher_info else {})
    return {fault.pointer: fault.message for fault in found}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"student": {"architecture": GPT2}},
        {"dataset": {"source": "builtin:languages", "targets": ["label", "kind"]}, "method": {"name": "multi-task"}},
        {"method": {"name": "pkt"}},
        {"student": {"architecture": GPT2}, "method": {"name": "fitnet"}},
        {"method": {"name": "fitnet", "layers": {"student": ["score"], "teacher": ["classifier"]}}},
    ],
)
def test_a_spec_for_texts_fits(changes: dict[str, Any]) -> None:
    assert faults(**changes) == {}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"teacher": {"architecture": BERT}}, "/teacher/tokenizer", "needs one, such as"),
        (
            {"student": {"architecture": GPT2, "tokenizer": BPE | {"vocab_size": 200}}},
            "/student/tokenizer/vocab_size",
            "bpe has 258 tokens before it learns any, and vocab_size is 200",
        ),
        (
            {"student": {"architecture": GPT2, "tokenizer": BPE | {"max_length": 64}}},
            "/student/architecture/config/n_positions",
            "n_positions is 32, and texts may have 64 tokens: make it 64 or lower max_length",
        ),
        (
            {"dataset": {"source": "builtin:languages", "targets": ["tongue"]}},
            "/dataset/targets/0",
            "no column 'tongue'; its target columns are 'label', 'kind'",
        ),
        ({"dataset": {"source": "builtin:languages", "targets": []}}, "/dataset/targets", "predicts something"),
        ({"student": {"architecture": {"name": "small-cnn", "width": 8}}}, "/student/architecture/name", "these are texts"),
        (
            {"student": {"architecture": GPT2 | {"model_type": "vit", "config": {}}}},
            "/student/architecture/model_type",
            "no text",
        ),
        ({"method": {"name": "fitnet"}}, "/method/name", "fitnet compares token by token"),
        ({"method": {"terms": [{"name": "labels"}, {"name": "vid"}]}}, "/method/terms/1/name", "leave student.tokenizer out"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, Any], pointer: str, words: str) -> None:
    found = faults(**changes)
    assert pointer in found, found
    assert words in found[pointer]


def test_a_tokenizer_says_how_many_tokens_it_may_have() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document(student={"architecture": GPT2, "tokenizer": {"train": "bpe"}}))
    assert [fault.pointer for fault in caught.value.faults] == ["/student/tokenizer/vocab_size"]


def test_a_tokenizer_is_for_texts() -> None:
    images = parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": {"architecture": {"name": "small-cnn"}},
            "student": {"architecture": {"name": "small-cnn"}, "tokenizer": BPE},
        }
    )
    (fault,) = check_fit(images, BUILTIN_DATASETS["digits"].info, teachers={})
    assert fault.pointer == "/student/tokenizer"
    assert "a tokenizer is for texts" in fault.message


def test_a_teacher_that_was_trained_before_knows_the_same_classes() -> None:
    elsewhere = TeacherInfo(task="text-classification", classes=["good", "bad"], input_shape=None)
    found = faults(teacher={"source": "model:model_x"}, teacher_info=elsewhere)
    assert found.keys() == {"/teacher/source"}
    assert "other classes: it has 2, the dataset 8: none of its outputs is a class of the dataset" in found["/teacher/source"]
