"""The job specs in ``examples/``: each is whole, and fits its data."""

from pathlib import Path

import pytest

from service.spec import load_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import check_fit

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_submitted_as_it_is(path: Path) -> None:
    spec = load_spec(path)
    assert check_fit(spec, BUILTIN_DATASETS[spec.dataset.source.removeprefix("builtin:")].info, teachers={}) == []
