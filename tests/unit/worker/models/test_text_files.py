"""The tokenizer beside a text network: what it pads with, where it cuts, and what is refused with a remedy that works."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.formats import TextPair
from service.spec.architectures import TransformersNetwork
from service.spec.shapes import TokenShape
from service.spec.transformers_fit import POSITIONS, classifiers, config_fields, first_position, transformers_faults
from tests.truth.text_networks import TEXT_SWITCHES, save_network, texts_of
from tests.truth.texts import alone, most_positions
from tests.truth.words import token_classification
from worker.data import Data, Split
from worker.data.errors import UnfitInputs
from worker.data.tensors import only_tensor
from worker.models import UnreadableNetwork, build_network
from worker.tasks import TASKS, load_network

DEFAULTS = {name: values[0] for name, values in TEXT_SWITCHES.items()}
LONG = texts_of("long")


def saved(model_type: str, folder: Path, *, fields: dict[str, Any] | None = None, **settings: str) -> Path:
    chosen = DEFAULTS | {name.replace("_", " "): value for name, value in settings.items()}
    save_network(AutoModelForSequenceClassification, model_type, chosen, folder, **(fields or {}))
    return folder


def assert_as_in_the_library(folder: Path, texts: list[str]) -> None:
    """Compares the outputs of texts in one batch with those of each alone in the library."""
    loaded = load_network(folder)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        outputs = loaded.network(loaded.preprocessing(loaded.preprocessing.prepare(texts)))
    expected = torch.cat([alone(model, tokenizer, text).logits for text in texts])
    torch.testing.assert_close(outputs, expected, atol=1e-4, rtol=1e-4)


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "mpnet", "modernbert", "mobilebert"])
def test_what_the_tokenizer_pads_is_masked_whatever_the_config_says(tmp_path: Path, model_type: str) -> None:
    folder = saved(model_type, tmp_path, pad_token="not the config's")
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0  # a word, "a", which stands in the texts
    assert_as_in_the_library(folder, texts_of("odd"))


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "opt"])
def test_a_network_that_would_look_for_other_padding_is_refused_until_its_config_agrees(tmp_path: Path, model_type: str) -> None:
    folder = saved(model_type, tmp_path, pad_token="not the config's")
    with pytest.raises(UnreadableNetwork, match=r"pad_token_id 0, and the tokenizer pads with 4 .*set it to 4 in config\.json"):
        load_network(folder)
    edit(folder / "config.json", pad_token_id=4)
    assert_as_in_the_library(folder, texts_of("odd"))


@pytest.mark.parametrize("pad_token", ["not the config's", "the end token", "none in the config"])
def test_a_classifier_of_words_looks_for_no_padding(tmp_path: Path, pad_token: str) -> None:
    subject = token_classification()
    settings = {name: values[0] for name, values in subject.switches.items()}
    assert subject.run("gpt2", settings | {"pad token": pad_token}, tmp_path).refusal is None


def test_a_network_without_a_pad_token_gets_its_tokenizers_unless_every_text_ends_with_it(tmp_path: Path) -> None:
    assert_as_in_the_library(saved("gpt2", tmp_path / "one", pad_token="none in the config"), texts_of("odd"))
    folder = saved("gpt2", tmp_path / "other", pad_token="the end token")
    assert_as_in_the_library(folder, texts_of("short"))
    edit(folder / "config.json", pad_token_id=None)
    with pytest.raises(UnreadableNetwork, match=r"ends texts with the token that it pads with, 3 .*set pad_token_id to 3"):
        load_network(folder)
    edit(folder / "config.json", pad_token_id=3)
    assert_as_in_the_library(folder, texts_of("short"))


def test_roberta_is_cut_at_the_positions_that_padding_leaves(tmp_path: Path) -> None:
    fields = {"max_position_embeddings": 34}
    folder = saved("roberta", tmp_path, fields=fields, cut_at="nothing", letters="as they are")
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 4
    assert_as_in_the_library(folder, LONG)
    assert only_tensor(load_network(folder).preprocessing.prepare(LONG)).shape[1] == 34 - 4 - 1


@pytest.mark.parametrize("model_type", classifiers("text-classification"))
def test_a_network_reads_as_many_tokens_as_is_reckoned(tmp_path: Path, model_type: str) -> None:
    folder = saved(model_type, tmp_path, cut_at="nothing")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    reckoned = getattr(load_network(folder).preprocessing, "max_length", None)
    assert reckoned == (most_positions(model) or 24)
    assert any(name in config_fields(model_type) for name in POSITIONS)
    assert_as_in_the_library(folder, LONG)


def test_deberta_with_positions_of_its_own_is_cut_at_them(tmp_path: Path) -> None:
    folder = saved("deberta-v2", tmp_path, fields={"position_biased_input": True}, cut_at="nothing")
    assert_as_in_the_library(folder, LONG)
    assert only_tensor(load_network(folder).preprocessing.prepare(LONG)).shape[1] == 24


@pytest.mark.parametrize(("model_type", "pad"), [("mpnet", 0), ("mpnet", 5), ("roberta", 0), ("roberta", 3), ("bert", 3)])
def test_a_spec_asks_for_as_many_positions_as_the_longest_text_needs(model_type: str, pad: int) -> None:
    shape = TokenShape(vocabulary=12, length=8, pad=pad, start=1, end=2)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}

    def architecture(positions: int) -> TransformersNetwork:
        config = small | {"max_position_embeddings": positions}
        return TransformersNetwork(name="transformers", model_type=model_type, config=config)

    needed = 8 + first_position(model_type, pad)
    (fault,) = transformers_faults(architecture(needed - 1), input_shape=shape, num_outputs=2)
    assert f"make it {needed}" in fault.message
    assert not transformers_faults(architecture(needed), input_shape=shape, num_outputs=2)
    network = build_network(
        architecture(needed), kind=TASKS["text-classification"].network, input_shape=shape, num_outputs=2
    ).eval()
    assert network(torch.full((1, 8), 7)).shape == (1, 2)


@pytest.mark.parametrize(
    ("settings", "words", "remedy"),
    [
        (
            {"token_types": "given, not 0"},
            r"token types \[1\].* take token_type_ids out of model_input_names",
            lambda folder: edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"]),
        ),
    ],
)
def test_what_is_not_computed_is_refused_and_the_remedy_works(
    tmp_path: Path, settings: dict[str, str], words: str, remedy: Callable[[Path], None]
) -> None:
    folder = saved("bert", tmp_path, fields=None, **settings)
    with pytest.raises(UnreadableNetwork, match=words):
        load_network(folder)
    remedy(folder)
    assert_as_in_the_library(folder, texts_of("short"))


def test_added_tokens_without_an_embedding_are_refused_until_the_network_is_resized(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"added{number}" for number in range(9)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UnreadableNetwork, match=r"model\.resize_token_embeddings\(len\(tokenizer\)\)"):
        load_network(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    assert_as_in_the_library(folder, [*texts_of("short"), "alpha added8"])


def test_a_network_without_an_embedding_for_the_types_of_its_tokenizer_is_refused_for_pairs_alone(tmp_path: Path) -> None:
    loaded = load_network(saved("bert", tmp_path, token_types="given", fields={"type_vocab_size": 1}))
    task = TASKS["text-classification"]

    def data_of(inputs: Sequence[Any]) -> Data:
        return Data(task.name, {"train": Split(inputs, torch.zeros(1, dtype=torch.int64))}, loaded.targets)

    task.fit_inputs(loaded, data_of(["alpha beta"]), source="model:given")
    with pytest.raises(UnfitInputs, match=r"type 1, and its config\.json says type_vocab_size 1.*tokenizer_config\.json"):
        task.fit_inputs(loaded, data_of([TextPair("alpha", "beta")]), source="model:given")
