"""The job specs in ``examples/``: each is whole, and fits its data."""

from pathlib import Path

import pytest

from examples import named_entities, python_docs
from service.formats import inspect_dataset
from service.spec import load_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo
from service.spec.fit import check_fit

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def datasets(spoken_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetInfo]:
    """By source: what comes with the service, and what scripts among the examples make."""
    tmp_path = tmp_path_factory.mktemp("examples")
    entities = tmp_path / "entities.jsonl"
    named_entities.main([str(entities), "--sentences", "100"])
    texts = tmp_path / "texts.csv"
    chats = tmp_path / "chats.jsonl"
    for path in (texts, chats):
        python_docs.write(path)
    made = {
        "file:spoken-digits.zip": inspect_dataset(spoken_digits, filename=spoken_digits.name, task="audio-classification"),
        "file:entities.jsonl": inspect_dataset(entities, filename=entities.name, task="token-classification"),
        "file:docs.csv": inspect_dataset(texts, filename=texts.name, task="text-classification"),
        "file:chats.jsonl": inspect_dataset(chats, filename=chats.name, task="causal-lm", input_column="messages"),
        "file:prose.csv": inspect_dataset(texts, filename=texts.name, task="causal-lm"),
    }
    return {f"builtin:{name}": dataset.info for name, dataset in BUILTIN_DATASETS.items()} | made


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_submitted_as_it_is(path: Path, datasets: dict[str, DatasetInfo]) -> None:
    spec = load_spec(path)
    assert check_fit(spec, datasets[spec.dataset.source], teachers={}) == []
