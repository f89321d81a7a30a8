"""The fields that may stand at a place of a spec, and the one that a misspelt name means."""

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec

SPEC = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn"}, "training": {"epochs": 1}},
    "student": {"architecture": {"name": "small-cnn"}},
}


def fault(**changes: object) -> str:
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(SPEC | changes)
    (only,) = refused.value.faults
    return f"{only.pointer}: {only.message}"


def test_a_misspelt_field_is_told_the_one_that_is_meant_and_all_there_are() -> None:
    told = fault(method={"name": "soft-targets", "temprature": 3})
    assert told.startswith("/method/temprature: this field is unknown. Did you mean temperature? There are: ")
    assert "label_weight, name, temperature" in told


def test_fields_are_those_of_the_variant_that_is_named() -> None:
    told = fault(method={"terms": [{"name": "soft-targets"}, {"name": "dkd", "bet": 1}]})
    assert "Did you mean beta?" in told
    assert "warmup_epochs" in told
    assert "temperatur" not in fault(training={"epochs": 1, "optimizer": {"name": "sgd", "momentun": 1}})


def test_where_nothing_is_alike_only_what_there_is_is_told() -> None:
    told = fault(training={"epochs": 1, "optimizer": {"name": "adamw", "lr": 1}})
    assert "Did you mean" not in told
    assert "learning_rate" in told
