"""Networks that exist, loaded to be trained: whose head is kept, mapped by name or made anew, and what of a body is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.spec.architectures import SmallCnn
from service.spec.inputs import TokenizerSpec
from service.spec.tasks import TaskName
from tests.unit.worker.models.test_folder import EIGHT_BIT, edit
from worker.data.text.texts import train_text_preprocessing
from worker.models import NetworkKind, UnreadableNetwork, build_network, save_network
from worker.models.given import describe_given, load_given
from worker.targets import Target, Targets
from worker.tasks import TASKS

SMALL: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32,
}  # fmt: skip
NAMES = ["Ant", "bee", "cat", "dog"]


def text_folder(folder: Path, auto_class: str, *, model_type: str = "bert", shard: str = "5GB", **config: Any) -> Path:
    """A tiny network as that class of the library saves it, with a tokenizer."""
    torch.manual_seed(1)
    model = getattr(transformers, auto_class).from_config(
        transformers.AutoConfig.for_model(model_type, **{**SMALL, "pad_token_id": 0, **config})
    )
    model.save_pretrained(folder, max_shard_size=shard)
    reads = train_text_preprocessing(["one and two and three"], TokenizerSpec(train="wordpiece", vocab_size=100, max_length=32))
    reads.save(folder, input_shape=reads.input_shape([]))
    return folder


def kind(task: TaskName) -> NetworkKind:
    return TASKS[task].network


def logits(network: nn.Module) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network.eval()(torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]))
    return outputs


CLASSIFIER: dict[str, Any] = {"num_labels": 4, "id2label": dict(enumerate(NAMES))}


def test_a_head_is_mapped_by_name_and_what_the_data_lack_is_dropped(tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModelForSequenceClassification", **CLASSIFIER)
    whole, kept = load_given(folder, kind("text-classification"), targets=Targets.of_classes(NAMES))
    some, mapped = load_given(folder, kind("text-classification"), targets=Targets.of_classes(["dog", "ant", "cat"]))

    assert (kept.kind, kept.kept, kept.dropped) == ("kept", tuple(NAMES), ())
    assert (mapped.kind, mapped.kept, mapped.dropped) == ("mapped", ("dog", "ant", "cat"), ("bee",))
    torch.testing.assert_close(logits(some.network), logits(whole.network)[:, [3, 0, 2]])
    assert some.classes == ["dog", "ant", "cat"]


@pytest.mark.parametrize(
    "targets",
    [
        Targets.of_classes(["red", "green", "blue", "white"]),
        Targets.of_classes(["ant", "bee", "emu"]),
        Targets((Target("price", None),)),
    ],
    ids=["as many", "one is unknown", "a number"],
)
def test_a_head_of_other_labels_is_made_anew_by_the_seed_and_the_body_stays(tmp_path: Path, targets: Targets) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModelForSequenceClassification", **CLASSIFIER)
    before = load_file(folder / "model.safetensors")

    def load(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        loaded, fitted = load_given(folder, kind("text-classification"), targets=targets)
        assert (fitted.kind, fitted.dropped, fitted.made) == ("new", tuple(NAMES), ("classifier.bias", "classifier.weight"))
        weights: dict[str, Tensor] = loaded.network.model.state_dict()  # type: ignore[union-attr]
        return weights

    ours = load(0)
    assert all(torch.equal(ours[name], before[name]) for name in before if not name.startswith("classifier"))
    assert not torch.isin(ours["classifier.weight"], before["classifier.weight"]).any()
    assert torch.equal(load(0)["classifier.weight"], ours["classifier.weight"])
    assert not torch.equal(load(1)["classifier.weight"], ours["classifier.weight"])


@pytest.mark.parametrize(
    ("auto_class", "made"),
    [
        ("AutoModel", {"classifier.weight", "classifier.bias"}),
        ("AutoModelForMaskedLM", {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}),
        (
            "AutoModelForTokenClassification",
            {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"},
        ),
    ],
)
def test_a_backbone_gets_a_head_of_its_own_even_where_its_config_names_the_classes(
    tmp_path: Path, auto_class: str, made: set[str]
) -> None:
    folder = text_folder(tmp_path / "folder", auto_class, num_labels=2, id2label={0: "a", 1: "b"})
    loaded, fitted = load_given(folder, kind("text-classification"), targets=Targets.of_classes(["a", "b"]))
    assert fitted.kind == "new"
    assert set(fitted.made) == made
    assert bool(logits(loaded.network).isfinite().all())


def test_shards_and_tied_weights_are_loaded_as_one_network(tmp_path: Path) -> None:
    whole = text_folder(tmp_path / "whole", "AutoModelForCausalLM", model_type="llama", tie_word_embeddings=True)
    shards = text_folder(tmp_path / "shards", "AutoModelForCausalLM", model_type="llama", tie_word_embeddings=True, shard="20KB")
    assert (shards / "model.safetensors.index.json").is_file()
    one, other = (load_given(folder, kind("causal-lm"), targets=Targets(()))[0].network for folder in (whole, shards))
    assert torch.equal(logits(one), logits(other))
    model: Any = other
    assert model.model.lm_head.weight is model.model.model.embed_tokens.weight


def test_the_projects_own_network_gets_another_head_or_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    network = build_network(SmallCnn(name="small-cnn", width=4), input_shape=(3, 8, 8), num_outputs=3)
    save_network(network, tmp_path / "own", preprocessing=EIGHT_BIT, targets=Targets.of_classes(["ant", "bee", "cat"]))
    pixels = torch.rand(2, 3, 8, 8)
    mapped, how = load_given(tmp_path / "own", kind("image-classification"), targets=Targets.of_classes(["cat", "ant"]))
    torch.testing.assert_close(mapped.network.eval()(pixels), network.eval()(pixels)[:, [2, 0]])
    assert how.kind == "mapped"
    made, how = load_given(tmp_path / "own", kind("image-classification"), targets=Targets.of_classes(["x", "y", "z", "w"]))
    assert made.network(pixels).shape == (2, 4)
    assert (how.kind, how.dropped) == ("new", ("ant", "bee", "cat"))
    with pytest.raises(UnreadableNetwork, match="none of these is a text classifier"):
        load_given(tmp_path / "own", kind("text-classification"), targets=Targets.of_classes(["a", "b"]))


def test_a_network_is_described_as_it_will_be_without_a_weight(tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModel")
    state = torch.get_rng_state()
    described = describe_given(folder, kind("text-classification"), targets=Targets.of_classes(["a", "b", "c"]))
    assert torch.equal(torch.get_rng_state(), state)
    loaded, _ = load_given(folder, kind("text-classification"), targets=Targets.of_classes(["a", "b", "c"]))
    shapes = {name: weight.shape for name, weight in loaded.network.state_dict().items()}
    assert {name: weight.shape for name, weight in described.network.state_dict().items()} == shapes
    assert all(weight.is_meta for weight in described.network.parameters())


def lose(folder: Path, *prefixes: str) -> None:
    weights = load_file(folder / "model.safetensors")
    left = {name: weight for name, weight in weights.items() if not name.startswith(prefixes)}
    assert len(left) < len(weights)
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("auto_class", "task", "lost", "words"),
    [
        ("AutoModel", "text-classification", "encoder.layer.1.", "lacks bert.encoder.layer.1"),
        ("AutoModelForMaskedLM", "text-classification", "bert.embeddings.word", "lacks bert.embeddings.word_embeddings.weight"),
        ("AutoModelForMaskedLM", "sentence-embedding", "bert.encoder.layer.0.output", "lacks encoder.layer.0.output"),
    ],
)
def test_a_body_that_is_not_whole_is_refused(tmp_path: Path, auto_class: str, task: TaskName, lost: str, words: str) -> None:
    folder = text_folder(tmp_path / "folder", auto_class)
    lose(folder, lost)
    targets = Targets(()) if task == "sentence-embedding" else Targets.of_classes(["a", "b"])
    with pytest.raises(UnreadableNetwork, match=words):
        load_given(folder, kind(task), targets=targets)


@pytest.mark.parametrize(
    ("auto_class", "task"), [("AutoModel", "text-classification"), ("AutoModelForMaskedLM", "sentence-embedding")]
)
def test_a_body_with_more_layers_than_its_config_says_is_refused(tmp_path: Path, auto_class: str, task: TaskName) -> None:
    folder = text_folder(tmp_path / "folder", auto_class)
    edit(folder, "config.json", num_hidden_layers=1)
    with pytest.raises(UnreadableNetwork, match=r"encoder\.layer\.1\..* makes a network with fewer layers"):
        load_given(folder, kind(task), targets=Targets.of_classes(["a", "b"]) if TASKS[task].info.targets else Targets(()))


def test_a_language_model_without_its_output_layer_is_refused(tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModelForCausalLM", model_type="llama", tie_word_embeddings=False)
    lose(folder, "lm_head")
    with pytest.raises(UnreadableNetwork, match=r"lacks lm_head\.weight: save the whole network"):
        load_given(folder, kind("causal-lm"), targets=Targets(()))


@pytest.mark.parametrize(
    ("task", "model_type", "words"),
    [
        ("causal-lm", "gemma2", "whether the logits of others are scaled or capped"),
        ("text-classification", "vit", "is no text classifier"),
    ],
)
def test_a_model_type_that_is_not_trained_is_refused_with_those_that_are(
    tmp_path: Path, task: TaskName, model_type: str, words: str
) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModel")
    edit(folder, "config.json", model_type=model_type)
    with pytest.raises(UnreadableNetwork, match=words):
        load_given(folder, kind(task), targets=Targets(()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: edit(folder, "config.json", auto_map={"AutoModel": "code.Model"}), "may not have auto_map"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), r"is a pickle.*save_pretrained"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "merge_and_unload"),
    ],
    ids=["code", "pickle", "adapter"],
)
def test_what_is_no_plain_network_is_refused(tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModel")
    change(folder)
    with pytest.raises(UnreadableNetwork, match=words):
        load_given(folder, kind("text-classification"), targets=Targets.of_classes(["a", "b"]))


def test_a_vocabulary_larger_than_the_tokenizers_is_kept_and_a_smaller_one_is_refused(tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "folder", "AutoModel", vocab_size=128)
    loaded, _ = load_given(folder, kind("text-classification"), targets=Targets.of_classes(["a", "b"]))
    model: Any = loaded.network
    assert len(model.model.get_input_embeddings().weight) == 128
    small = text_folder(tmp_path / "small", "AutoModel", vocab_size=9)
    with pytest.raises(UnreadableNetwork, match=r"resize_token_embeddings\(len\(tokenizer\)\)"):
        load_given(small, kind("text-classification"), targets=Targets.of_classes(["a", "b"]))
