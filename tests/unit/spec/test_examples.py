"""The job specs in ``examples/``: each is whole, and fits its data."""

from pathlib import Path

import pytest

from service.formats import inspect_dataset
from service.spec import load_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo
from service.spec.fit import check_fit

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.fixture
def datasets(spoken_digits: Path) -> dict[str, DatasetInfo]:
    """By source: what comes with the service, and what a script among the examples makes."""
    spoken = inspect_dataset(spoken_digits, filename=spoken_digits.name, task="audio-classification")
    return {f"builtin:{name}": dataset.info for name, dataset in BUILTIN_DATASETS.items()} | {"file:spoken-digits.zip": spoken}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_submitted_as_it_is(path: Path, datasets: dict[str, DatasetInfo]) -> None:
    spec = load_spec(path)
    assert check_fit(spec, datasets[spec.dataset.source], teachers={}) == []
