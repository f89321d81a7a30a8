"""Causal language models: every model type's head on its hidden states gives its logits; folders load again as they were."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.spec.architectures import TransformersNetwork
from service.spec.language_fit import NOT_ISOLATED
from service.spec.shapes import TokenShape
from service.spec.transformers_fit import classifiers, task_of, task_of_config
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.tokenization import train_tokenizer
from worker.errors import JobFault
from worker.models import UnfitArchitecture, build_network, save_network
from worker.models.language_network import LanguageNetwork
from worker.targets import Targets
from worker.tasks import TASKS, load_network

SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 8},
    "gpt_neo": {
        "num_layers": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "attention_types": [[["global"], 1]],
        "max_position_embeddings": 8,
    },
    "opt": {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 8},
}
USUAL = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
GROUPED = {"llama", "mistral", "qwen2", "qwen3"}


def built(model_type: str, shape: TokenShape, **settings: Any) -> LanguageNetwork:
    config = SMALL.get(model_type, USUAL | ({"num_key_value_heads": 1} if model_type in GROUPED else {})) | settings
    architecture = TransformersNetwork(name="transformers", model_type=model_type, config=config)
    torch.manual_seed(0)
    network = build_network(architecture, kind=TASKS["causal-lm"].network, input_shape=shape, num_outputs=0)
    assert isinstance(network, LanguageNetwork)
    return network.eval()


@pytest.mark.parametrize("model_type", classifiers("causal-lm"))
def test_the_head_on_the_hidden_states_gives_the_librarys_logits(model_type: str) -> None:
    network = built(model_type, TokenShape(20, 8, pad=1, start=0, end=0))
    ids = torch.randint(2, 20, (2, 8))
    with torch.no_grad():
        logits = network.model(input_ids=ids).logits
        torch.testing.assert_close(network.head(network.hidden(ids)), logits)
        torch.testing.assert_close(network(ids), logits[:, -1])
        padded = ids.clone()
        padded[:, 6:] = 1
        torch.testing.assert_close(network.hidden(padded)[:, :6], network.hidden(ids)[:, :6])


@pytest.mark.parametrize("model_type", [each for each in classifiers("causal-lm") if each not in NOT_ISOLATED])
def test_texts_of_one_row_do_not_attend_to_each_other(model_type: str) -> None:
    near: dict[str, dict[str, Any]] = {
        "mistral": {"sliding_window": 3},
        "gpt_neo": {"attention_types": [[["local"], 1]], "window_size": 3},
    }
    network = built(model_type, TokenShape(20, 8, pad=1, start=0, end=0), **near.get(model_type, {}))
    ids, positions = torch.randint(2, 20, (2, 8)), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5, 0, 0]])
    with torch.no_grad():
        together, before = network.hidden(ids, positions), network.hidden(ids)
        for row, first, last in ((0, 0, 4), (0, 4, 7), (1, 0, 6)):
            torch.testing.assert_close(together[row, first:last], network.hidden(ids[row : row + 1, first:last])[0])
    assert not torch.allclose(together[0, 4:7], before[0, 4:7]), "or nothing is shown"


@pytest.mark.parametrize("model_type", NOT_ISOLATED)
def test_a_network_that_tells_no_texts_by_positions_is_refused(model_type: str) -> None:
    network = built(model_type, TokenShape(20, 8, pad=1, start=0, end=0))
    with pytest.raises(JobFault, match="does not keep the texts of a row from attending to each other") as fault:
        network.hidden(torch.full((1, 4), 2), torch.tensor([[0, 1, 0, 1]]))
    assert fault.value.details == {"pointer": "/dataset/packing"}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_saved_folder_loads_with_its_tokenizer_as_it_was(tmp_path: Path, kind: Any) -> None:
    reads = LanguagePreprocessing(train_tokenizer(["one and two make three"], kind, 300), 8)
    network = built("gpt2", reads.input_shape([]))
    targets = Targets(())
    save_network(network, tmp_path, preprocessing=reads, targets=targets)
    loaded = load_network(tmp_path)
    assert not (tmp_path / "labels.json").exists()
    assert loaded.targets == targets
    assert loaded.input_shape == reads.input_shape([])
    assert isinstance(loaded.preprocessing, LanguagePreprocessing)
    texts = ["two make one", "and three"]
    ids = reads.prepare(texts)
    assert torch.equal(loaded.preprocessing.prepare(texts), ids)
    with torch.no_grad():
        assert torch.equal(loaded.network(ids), network(ids))


def test_the_end_of_a_text_that_also_pads_is_still_a_token_to_learn() -> None:
    network = built("llama", TokenShape(20, 8, pad=0, start=0, end=0))
    assert network.model.get_input_embeddings().padding_idx is None


def test_a_model_type_that_is_no_causal_language_model_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnfitArchitecture, match="no causal language model of transformers; use one of gpt2, "):
        built("bert", TokenShape(20, 8, pad=1, end=0))


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "causal-lm"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "causal-lm"),
        ({"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]}, "text-classification"),
        ({"model_type": "gpt2"}, "text-classification"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "text-classification"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "sentence-embedding"),
        ({"model_type": "resnet", "architectures": "ResNet"}, "image-classification"),
        ({"model_type": ["gpt2"]}, None),
        ({}, None),
    ],
)
def test_the_task_of_a_config_is_told_by_its_architecture(config: dict[str, Any], task: str | None) -> None:
    assert task_of_config(config) == task
    assert task_of("gpt2") == "text-classification"
