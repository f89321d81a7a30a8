"""Text classifiers, encoders and causal language models, compared with their library on each text alone.

A text alone has no padding, so nothing depends on what stands beside it in a batch, as in the library's ``pipeline``.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.formats import TextPair
from service.spec.data import DatasetSpec
from service.spec.problem_type import MULTI_LABEL
from service.spec.transformers_fit import classifiers
from tests.truth.service_path import read_as_a_job
from tests.truth.subject import Outcome, Settings, Subject
from tests.truth.text_networks import ALONE, CLASSES, TEXT_SWITCHES, save_network, texts_of, write_rows
from worker.data import Data, UnusableData
from worker.data.errors import UnreadableTokenizer
from worker.data.split import SplitName
from worker.errors import JobFault
from worker.models import UnfitArchitecture, UnreadableNetwork
from worker.trained import load_teacher

REFUSALS = (UnusableData, UnreadableTokenizer, UnreadableNetwork, UnfitArchitecture, JobFault)
CPU = torch.device("cpu")
CLASSIFIER_SWITCHES = TEXT_SWITCHES | {"order of the names": ["the dataset's", "another"], "input": ["texts", "pairs"]}
SEVERAL = {"labels of a row": ["several"]}
TOLERANCE = 1e-4


def text_classification() -> Subject:
    """Classifiers, each with its own names of the classes."""
    return Subject(
        "text-classification", classifiers("text-classification"), CLASSIFIER_SWITCHES, _try_classifier, {**ALONE, **SEVERAL}
    )


def _try_classifier(model_type: str, settings: Settings, folder: Path) -> Outcome:
    names = CLASSES if settings["order of the names"] == "the dataset's" else CLASSES[::-1]
    saved = folder / "teacher"
    save_network(
        AutoModelForSequenceClassification,
        model_type,
        settings,
        saved,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=MULTI_LABEL if "labels of a row" in settings else None,
    )
    texts: Sequence[str | TextPair] = texts_of(settings["texts"])
    columns = ["premise", "hypothesis"] if settings["input"] == "pairs" else ["text"]
    if len(columns) > 1:
        texts = [
            TextPair(text, cast(str, texts[(5 * index + 3) % len(texts)]))
            for index, text in enumerate(texts_of(settings["texts"]))
        ]
    path = folder / f"rows.{settings['file']}"
    rows = [dict(zip(columns, [text] if isinstance(text, str) else text, strict=True)) for text in texts]
    write_rows(path, [{**row, "label": _label(index, settings)} for index, row in enumerate(rows)] * 3)
    named = columns if len(columns) > 1 else columns[0]
    try:
        data = read_as_a_job(DatasetSpec(source=f"file:{path}", input=named), path, "text-classification")
        teacher = load_teacher(saved, source="model:saved", data=data)
        computed = {part: teacher.outputs(split) for part, split in data.splits.items()}
    except REFUSALS as error:
        return Outcome(str(error))
    tokenizer = AutoTokenizer.from_pretrained(saved)
    model = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    order = [names.index(name) for name in CLASSES]
    expected = {text: alone(model, tokenizer, text).logits[0, order] for text in dict.fromkeys(texts)}
    compare(data, computed, expected)
    return Outcome()


def _label(index: int, settings: Settings) -> Any:
    """The class of a row, or the list of its classes: none, or two."""
    if "labels of a row" not in settings:
        return CLASSES[index % 3]
    return [] if index % 4 == 3 else [CLASSES[index % 3], CLASSES[(index + 1) % 3]]


def compare(data: Data, computed: Mapping[SplitName, Tensor], expected: Mapping[Any, Tensor]) -> None:
    """Raises AssertionError where an output of a split differs from the text's own."""
    assert {text for split in data.splits.values() for text in split.inputs} == set(expected), "the texts that were read"
    for part, split in data.splits.items():
        own = torch.stack([expected[text] for text in split.inputs])
        # Rounding is that of the largest values in the network.
        tolerance = TOLERANCE * max(1.0, float(own.abs().max()))
        torch.testing.assert_close(computed[part], own, rtol=0, atol=tolerance)


def alone(model: Any, tokenizer: Any, text: str | TextPair) -> Any:
    """What the library computes of one text or pair, cut where the tokenizer says, else at the positions of the network."""
    parts = [text] if isinstance(text, str) else list(text)
    return call(model, tokenizer(*parts, return_tensors="pt", **cut(model, tokenizer)))


def call(model: Any, inputs: Mapping[str, Tensor]) -> Any:
    """What the network computes of those inputs that it takes."""
    accepted = inspect.signature(model.forward).parameters
    with torch.no_grad():
        return model(**{name: value for name, value in inputs.items() if name in accepted})


def cut(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The arguments by which the library's tokenizer cuts a text that the network can read."""
    most = most_positions(model)
    limit = min(tokenizer.model_max_length, 10_000 if most is None else most)
    return {"truncation": True, "max_length": limit}


@cache
def most_positions(model: Any) -> int | None:
    """Tokens of the longest text that the network reads, found by running it; None if it reads more than it has positions."""
    token, positions = model.config.vocab_size - 1, model.config.max_position_embeddings
    for length in range(positions + 2, 1, -1):
        try:
            with torch.no_grad():
                model(input_ids=torch.full((1, length), token))
        except (IndexError, RuntimeError):
            continue
        return None if length > positions else length
    raise AssertionError("the network reads no text")
