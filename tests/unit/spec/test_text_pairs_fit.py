"""Pairs of texts in a spec: which columns make one, and where they are refused."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.data import Column, DatasetInfo
from service.spec.fit import check_fit

TEXT = Column(kind="text", dtype="string")
LABEL = Column(kind="label", dtype="string", classes=["no", "yes"], num_classes=2)
COLUMNS = {"premise": TEXT, "hypothesis": TEXT, "source": Column(kind="other", dtype="string"), "label": LABEL}


def document(**changes: Any) -> dict[str, Any]:
    network = {"name": "transformers", "model_type": "bert", "config": {"hidden_size": 16, "num_attention_heads": 2}}
    return {
        "task": "text-classification",
        "dataset": {"source": "dataset:ds_1", "input": ["premise", "hypothesis"]},
        "teacher": {"architecture": network, "tokenizer": {"train": "wordpiece", "vocab_size": 200, "max_length": 32}},
        "student": {"architecture": network},
    } | changes


def faults(transfer_info: DatasetInfo | None = None, **dataset: Any) -> dict[str, str]:
    spec = parse_spec(document(dataset=document()["dataset"] | dataset))
    info = DatasetInfo(task="text-classification", splits={"train": 90}, columns=COLUMNS, classes=["no", "yes"])
    return {fault.pointer: fault.message for fault in check_fit(spec, info, teachers={}, transfer=transfer_info)}


def test_a_pair_of_columns_of_texts_fits_and_is_stored_as_it_was_named() -> None:
    assert faults() == {}
    spec = parse_spec(document())
    assert spec.dataset.inputs == ("premise", "hypothesis")
    assert parse_spec(spec.model_dump(mode="json")) == spec
    assert parse_spec(document(dataset={"source": "dataset:ds_1", "input": "premise"})).dataset.inputs == ("premise",)


@pytest.mark.parametrize(
    ("dataset", "pointer", "words"),
    [
        ({"input": ["premise", "claim"]}, "/dataset/input/1", "no column 'claim'; its text columns are 'premise', 'hypothesis'"),
        ({"input": ["source", "premise"]}, "/dataset/input/0", "upload it again with input_column=source,premise"),
        ({"input": ["premise", "label"]}, "/dataset/input/1", "holds no texts"),
        ({"weight": "hypothesis"}, "/dataset/weight", "is an input or a target too"),
    ],
)
def test_a_column_that_is_no_half_of_a_pair_is_refused_at_its_place(dataset: dict[str, Any], pointer: str, words: str) -> None:
    found = faults(**dataset)
    assert found.keys() == {pointer}
    assert words in found[pointer]


@pytest.mark.parametrize("columns", [["premise", "premise"], ["premise"], ["premise", "hypothesis", "source"], []])
def test_a_list_of_other_than_two_columns_is_refused(columns: list[str]) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(document(dataset={"source": "dataset:ds_1", "input": columns}))
    assert {fault.pointer.split("/")[2] for fault in refused.value.faults} == {"input"}


def test_transfer_rows_of_pairs_have_both_columns() -> None:
    one = DatasetInfo(task="text-classification", splits={"train": 9}, columns={"premise": TEXT}, classes=[])
    found = faults(one, transfer="dataset:ds_2")
    assert "it has no text column 'hypothesis'" in found["/dataset/transfer"]
    both = one.model_copy(update={"columns": {"premise": TEXT, "hypothesis": TEXT}})
    assert faults(both, transfer="dataset:ds_2") == {}


def test_a_task_that_reads_one_column_refuses_two() -> None:
    spec = parse_spec(document(task="sentence-embedding", method={"name": "embedding"}))
    info = DatasetInfo(task="sentence-embedding", splits={"train": 90}, columns=COLUMNS, classes=[])
    found = {fault.pointer: fault.message for fault in check_fit(spec, info, teachers={})}
    assert "pairs of texts are for 'text-classification'" in found["/dataset/input"]
