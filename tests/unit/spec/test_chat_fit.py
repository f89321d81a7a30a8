"""What a spec says of chats, and of rows that texts share, is refused at its place where data or networks do not go with it."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.data import Column, DatasetInfo
from service.spec.fit import check_fit
from tests.unit.spec.test_language_fit import NETWORK, TOKENIZER

COLUMNS = {
    "messages": Column(kind="messages", dtype="list"),
    "prompt": Column(kind="messages", dtype="list"),
    "completion": Column(kind="messages", dtype="list"),
    "text": Column(kind="text", dtype="string"),
    "answer": Column(kind="text", dtype="string"),
}
CHATS = DatasetInfo(task="causal-lm", splits={"train": 100}, columns=COLUMNS, classes=[])


def faults(method: str = "forward-kl", **dataset: Any) -> dict[str, str]:
    arguments = {"max_new_tokens": 4} if method in ("sequence", "on-policy") else {}
    network = NETWORK | dataset.pop("network", {})
    document = {
        "task": "causal-lm",
        "dataset": {"source": "dataset:ds_1"} | dataset,
        "teacher": {"architecture": network, "tokenizer": TOKENIZER},
        "student": {"architecture": NETWORK},
        "method": {"name": method} | arguments,
    }
    return {fault.pointer: fault.message for fault in check_fit(parse_spec(document), CHATS, teachers={})}


@pytest.mark.parametrize(
    "dataset",
    [
        {"input": "messages"},
        {"input": "messages", "packing": "isolated", "chat_template": "{{ messages }}", "overlong": "refuse"},
        {"input": "prompt", "targets": ["completion"], "packing": "isolated"},
        {"input": "text", "packing": "isolated"},
        {"input": "text", "targets": ["answer"], "packing": "isolated"},
    ],
)
def test_chats_and_texts_that_fit_have_no_fault(dataset: dict[str, Any]) -> None:
    assert faults(**dataset) == {}


@pytest.mark.parametrize(
    ("dataset", "pointer", "words"),
    [
        ({"input": "messages", "packing": "packed"}, "/dataset/packing", "make it padded or isolated"),
        ({"input": "text", "chat_template": "{{ messages }}"}, "/dataset/chat_template", "a template writes chats"),
        ({"input": "text", "overlong": "refuse"}, "/dataset/overlong", "set packing to padded or isolated"),
        ({"input": "prompt", "targets": ["answer"]}, "/dataset/targets/0", "take both of one kind"),
        ({"input": "text", "targets": ["completion"]}, "/dataset/targets/0", "take both of one kind"),
        ({"method": "sequence", "input": "text", "packing": "isolated"}, "/dataset/packing", "must be one text"),
        ({"method": "on-policy", "input": "messages", "packing": "isolated"}, "/dataset/packing", "must be one text"),
        (
            {"input": "text", "packing": "isolated", "network": {"model_type": "opt", "config": {}}},
            "/dataset/packing",
            "opt of the teacher does not keep the texts of a row from attending to each other",
        ),
    ],
)
def test_what_does_not_fit_is_told_at_its_place(dataset: dict[str, Any], pointer: str, words: str) -> None:
    assert words in faults(**dataset)[pointer]
