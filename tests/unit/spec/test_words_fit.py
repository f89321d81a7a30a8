"""What a spec of a task with tags of words may say: by the entry in the table alone."""

from dataclasses import replace
from typing import Any

import pytest

from service.spec import JobSpec, parse_spec
from service.spec.data import Column, DatasetInfo
from service.spec.fit import TeacherInfo, check_fit
from service.spec.tasks import TASKS
from tests.unit.words import OF_WORDS, TASK, task_of_words

pytestmark = pytest.mark.usefixtures(task_of_words.__name__)

SOURCE = "model:model_00000000000000000000000000"
BERT = {"name": "transformers", "model_type": "bert", "config": {"hidden_size": 16, "num_attention_heads": 2}}
TAGS = ["B-PER", "I-PER", "O"]
COUNTS = {"train": [20, 5, 300], "test": [0, 5, 100]}


def dataset(**kinds: str) -> DatasetInfo:
    columns = {
        name: Column.model_validate(
            {"kind": kind, "dtype": "list"} | ({"classes": TAGS, "class_counts": COUNTS} if kind in ("tags", "spans") else {})
        )
        for name, kind in kinds.items()
    }
    return DatasetInfo(task=TASK, splits={"train": 30, "test": 10}, columns=columns, classes=TAGS, class_counts=COUNTS)


WORDS = dataset(tokens="tokens", tags="tags", pos="tags")


def spec(**changes: Any) -> JobSpec:
    document: dict[str, Any] = {
        "task": TASK,
        "dataset": {"source": "file:words.jsonl"},
        "teacher": {"source": SOURCE},
        "student": {"architecture": BERT, "tokenizer": {"train": "wordpiece", "vocab_size": 400}},
    }
    return parse_spec(document | changes)


def faults(spec: JobSpec, described: DatasetInfo = WORDS, *, classes: list[str] | None = None) -> dict[str, str]:
    teacher = TeacherInfo(task=TASK, classes=classes or TAGS, input_shape=None)
    return {fault.pointer: fault.message for fault in check_fit(spec, described, teachers={SOURCE: teacher})}


def test_the_columns_are_the_entrys_and_a_type_may_be_too_rare_to_be_in_every_part() -> None:
    assert (spec().dataset.input, spec().dataset.targets) == ("tokens", ["tags"])
    assert faults(spec()) == {}
    trained = spec(teacher={"architecture": BERT, "tokenizer": {"train": "wordpiece", "vocab_size": 400}})
    assert faults(trained) == {}


def test_texts_with_spans_fit_too() -> None:
    named = spec(dataset={"source": "file:a.jsonl", "input": "text", "targets": ["spans"]})
    assert faults(named, dataset(text="text", spans="spans")) == {}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"dataset": {"source": "file:a", "targets": ["tags", "pos"]}}, "/dataset/targets/1", "has one target at most, the tags"),
        (
            {"dataset": {"source": "file:a", "targets": []}},
            "/dataset/targets",
            "name a column of tags or spans",
        ),
        ({"dataset": {"source": "file:a", "row_tokens": 8}}, "/dataset/row_tokens", "is of causal language models"),
        ({"dataset": {"source": "file:a", "numbers": ["tags"]}}, "/dataset/numbers/0", "holds classes"),
        ({"method": {"name": "jsd"}}, "/method/name", "jsd is for causal language models"),
        ({"method": {"name": "embedding"}}, "/method/name", "embedding is for sentence-embedding"),
        ({"method": {"terms": [{"name": "labels"}, {"name": "rkd"}]}}, "/method/terms/1/name", "rkd reads inner layers"),
        ({"method": {"name": "distillation-network"}}, "/method/name", "distillation-network reads inner layers"),
        ({"exports": ["onnx"]}, "/exports", "a token classifier is given out as its library's folder alone"),
        ({"training": {"augment": ["token-dropout"]}}, "/training/augment/0", "there are none for it: leave augment empty"),
        ({"teacher": {"architecture": BERT}}, "/teacher/tokenizer", "a teacher of texts that is trained here needs one"),
        ({"student": {"architecture": BERT | {"model_type": "vit"}}}, "/student/architecture/model_type", "vit reads no texts"),
    ],
)
def test_what_does_not_fit_is_told_at_its_place(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], pointer: str, words: str
) -> None:
    limited = replace(OF_WORDS, methods=("outputs",), augmented=(), one_form="a token classifier")
    monkeypatch.setitem(TASKS, TASK, limited)
    assert words in faults(spec(**changes))[pointer]


def test_a_teacher_of_other_tags_is_refused() -> None:
    assert "trained on other classes" in faults(spec(), classes=["B-LOC", "O"])["/teacher/source"]
