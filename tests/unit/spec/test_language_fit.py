"""What a spec of a causal language model may not say, each fault at its place."""

from typing import Any

import pytest

from service.spec import JobSpec, parse_spec
from service.spec.data import Column, DatasetInfo
from service.spec.fit import TeacherInfo, check_fit
from service.spec.methods import METHODS, OF_TOKENS

NETWORK = {"name": "transformers", "model_type": "gpt2", "config": {"n_layer": 1, "n_embd": 16, "n_head": 2}}
TOKENIZER = {"train": "bpe", "vocab_size": 300, "max_length": 64}
OTHER = TOKENIZER | {"vocab_size": 400}
TEXTS = DatasetInfo(
    task="causal-lm",
    splits={"train": 100},
    columns={"text": Column(kind="text", dtype="string"), "answer": Column(kind="text", dtype="string")},
    classes=[],
)

SOURCE = "model:model_00000000000000000000000000"


def spec(method: dict[str, Any], **changes: Any) -> JobSpec:
    document: dict[str, Any] = {
        "task": "causal-lm",
        "dataset": {"source": "builtin:languages"},
        "teacher": {"architecture": NETWORK, "tokenizer": TOKENIZER},
        "student": {"architecture": NETWORK},
        "method": method,
    }
    return parse_spec(document | changes)


def faults(spec: JobSpec, *, dataset: DatasetInfo = TEXTS, teacher: TeacherInfo | None = None) -> dict[str, str]:
    return {fault.pointer: fault.message for fault in check_fit(spec, dataset, teachers={SOURCE: teacher} if teacher else {})}


def test_a_plain_one_fits_and_is_packed_where_texts_need_not_be_rows() -> None:
    plain = spec({"name": "forward-kl"})
    assert faults(plain) == {}
    assert plain.dataset.packing is None
    assert parse_spec(plain.model_dump(mode="json")) == plain
    answers = spec({"name": "forward-kl"}, dataset={"source": "builtin:languages", "targets": ["answer"]})
    assert (faults(answers), answers.dataset.packing) == ({}, "padded")
    ranks = spec({"name": "uld"}, student={"architecture": NETWORK, "tokenizer": OTHER})
    assert (faults(ranks), ranks.dataset.packing) == ({}, "padded")


def test_the_texts_of_another_task_will_do_where_there_are_no_answers() -> None:
    labelled = TEXTS.model_copy(update={"task": "text-classification"})
    assert faults(spec({"name": "forward-kl"}), dataset=labelled) == {}
    answers = spec({"name": "forward-kl"}, dataset={"source": "builtin:languages", "targets": ["answer"]})
    assert "/task" in faults(answers, dataset=labelled)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS])
def test_methods_of_whole_samples_are_refused_with_those_to_take(name: str) -> None:
    arguments = {"assistants": [NETWORK]} if name == "teacher-assistant" else {}
    assert "take forward-kl" in faults(spec({"name": name} | arguments))["/method/name"]


@pytest.mark.parametrize("name", sorted(OF_TOKENS))
def test_methods_of_tokens_are_refused_for_other_tasks(name: str) -> None:
    other = parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": {"architecture": {"name": "small-cnn"}},
            "student": {"architecture": {"name": "small-cnn"}},
            "method": {"name": name},
        }
    )
    assert "take soft-targets" in faults(other)["/method/name"]


@pytest.mark.parametrize(
    ("method", "changes", "pointer", "words"),
    [
        ({"terms": [{"name": "soft-targets"}]}, {}, "/method/terms", "take one of forward-kl"),
        ({"name": "jsd"}, {"student": {"architecture": NETWORK, "tokenizer": OTHER}}, "/student/tokenizer", "the method uld"),
        (
            {"name": "uld"},
            {
                "student": {"architecture": NETWORK, "tokenizer": OTHER},
                "dataset": {"source": "builtin:languages", "packing": "packed"},
            },
            "/dataset/packing",
            "make it padded",
        ),
        (
            {"name": "jsd"},
            {"dataset": {"source": "builtin:languages", "packing": "packed", "targets": ["answer"]}},
            "/dataset/packing",
            "a text and its answer",
        ),
        ({"name": "on-policy", "max_new_tokens": 63}, {}, "/method/max_new_tokens", "write 62 at most"),
        (
            {"name": "sequence", "max_new_tokens": 31},
            {"dataset": {"source": "builtin:languages", "row_tokens": 32}},
            "/method/max_new_tokens",
            "write 30 at most",
        ),
        (
            {"name": "jsd"},
            {"student": {"architecture": NETWORK | {"config": {"n_positions": 32}}}},
            "/student/architecture/config/n_positions",
            "make it 64",
        ),
        (
            {"name": "jsd"},
            {"student": {"architecture": NETWORK | {"model_type": "bert", "config": {}}}},
            "/student/architecture/model_type",
            "no causal language model",
        ),
        (
            {"name": "jsd"},
            {"student": {"architecture": NETWORK | {"model_type": "mistral", "config": {"num_attention_heads": 2}}}},
            "/student/architecture/config/num_key_value_heads",
            "does not divide num_attention_heads 2",
        ),
    ],
)
def test_a_fault_is_told_at_its_place(method: dict[str, Any], changes: dict[str, Any], pointer: str, words: str) -> None:
    assert words in faults(spec(method, **changes))[pointer]


def test_a_teacher_of_another_task_is_refused_and_one_of_this_has_no_classes_to_compare() -> None:
    given = spec({"name": "forward-kl"}, teacher={"source": SOURCE})
    assert faults(given, teacher=TeacherInfo(task="causal-lm", classes=[], input_shape=None)) == {}
    classifier = TeacherInfo(task="text-classification", classes=["a"], input_shape=None)
    assert "for text-classification" in faults(given, teacher=classifier)["/teacher/source"]


def test_rows_of_tokens_are_of_no_other_task() -> None:
    other = parse_spec(
        {
            "task": "text-classification",
            "dataset": {"source": "builtin:languages", "packing": "packed", "row_tokens": 16},
            "teacher": {"architecture": NETWORK | {"model_type": "bert", "config": {}}, "tokenizer": TOKENIZER},
            "student": {"architecture": NETWORK | {"model_type": "bert", "config": {}}},
        }
    )
    assert {"/dataset/packing", "/dataset/row_tokens"} <= faults(other).keys()
