"""What a job reads of a file: every field of the spec that decides it is in the key of what is kept."""

from typing import Any

import pytest

from service.spec import parse_spec
from tests.unit.worker.preflight.jobs import digits
from worker.sources.data_files import data_file


def key(**dataset: Any) -> str:
    spec = parse_spec(digits(dataset={"source": "file:/data/a.npz"} | dataset))
    return data_file(spec.dataset, spec.task, "a.npz").key("content")


@pytest.mark.parametrize(
    "changed",
    [{"input": "picture"}, {"targets": ["label", "kind"]}, {"weight": "trust"}, {"skip_broken": True}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_selection_is_another_conversion(changed: dict[str, Any]) -> None:
    assert key(**changed) != key() == key(numbers=["label"], split_seed=7)
