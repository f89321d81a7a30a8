"""What a spec may say and no trainer does yet is refused at its place; everything else is left to the other checks."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import check_fit

CNN = {"name": "small-cnn"}
LORA = {"name": "lora"}


def faults(**parts: Any) -> set[str]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": CNN},
        "student": {"architecture": CNN},
    }
    found = check_fit(parse_spec(document | parts), BUILTIN_DATASETS["digits"].info, teachers={})
    assert all("no trainer does this yet" in fault.message for fault in found)
    return {fault.pointer for fault in found}


@pytest.mark.parametrize(
    ("parts", "places"),
    [
        ({"student": {"source": "model:a", "adapter": LORA}}, {"/student/adapter"}),
    ],
)
def test_what_no_trainer_does_is_refused_at_its_place(parts: dict[str, Any], places: set[str]) -> None:
    assert faults(**parts) == places


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"teacher": {"source": "file:/models/a"}},
        {"teacher": {"source": "hub:a/b", "training": {}}, "student": {"source": "file:/models/b"}},
        {"teacher": {"source": "hub:a/b", "dtype": "int4"}},
        {"training": {"optimizer": {"name": "adafactor"}, "gradient_checkpointing": False}},
        {"training": {"optimizer": {"name": "adamw-8bit"}}},
        {"student": {"architecture": CNN, "weights": "bf16"}},
        {"training": {"freeze": ["features"], "head_learning_rate": 0.1, "layer_decay": 0.9, "schedule": {"name": "linear"}}},
    ],
)
def test_what_trainers_do_is_not_refused(parts: dict[str, Any]) -> None:
    assert faults(**parts) == set()
