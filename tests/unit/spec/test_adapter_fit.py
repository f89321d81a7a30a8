"""What a student that is trained as an adapter cannot have."""

from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import check_fit

STUDENT = {"source": "model:a", "adapter": {"name": "lora"}}


def places(*, correct_bias: bool) -> set[str]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"source": "hub:a/b"},
        "student": STUDENT,
        "evaluation": {"correct_bias": correct_bias},
    }
    return {fault.pointer for fault in check_fit(parse_spec(document), BUILTIN_DATASETS["digits"].info, teachers={})}


def test_biases_that_an_adapter_does_not_hold_are_not_set() -> None:
    assert places(correct_bias=True) == {"/evaluation/correct_bias"}
    assert places(correct_bias=False) == set()
